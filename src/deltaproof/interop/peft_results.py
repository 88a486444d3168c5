"""PEFT's own method comparison, ranked with its ties: which of its runs can be told apart at all?

Its files keep a test accuracy but no answer per example, so runs are compared as independent samples: a two-sided
two-proportion z-test with pooled variance. A paired test would be sharper. The best of many is chosen by the numbers
that test it, which makes this an exploratory reading; each run is one seed, and the settings were not tuned alike.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy.special import ndtri

from deltaproof.errors import RecordError, nearest
from deltaproof.interop.peft_files import FULL_FINE_TUNING, PeftRun, read_runs
from deltaproof.stats import holm, two_proportion_z_test

GSM8K_TEST_EXAMPLES = 1319


@dataclass(frozen=True)
class RankedRun:
    """A run with the 95 % interval of its accuracy, and p-values of "as accurate as the best" and "as the reference".

    `p_best_holm` is corrected for comparing the best with every other run. The best and the reference have p = 1 with
    themselves; `p_reference` is None without a reference.
    """

    run: PeftRun
    low: float
    high: float
    p_best: float
    p_best_holm: float
    p_reference: float | None


@dataclass(frozen=True)
class PeftResults:
    """Runs from best to worst, and the groups (names in that order) that cannot be told apart at level `alpha`."""

    ranking: tuple[RankedRun, ...]
    n_test: int
    alpha: float
    reference: str | None
    notes: tuple[str, ...]

    @property
    def best(self) -> str:
        return self.ranking[0].run.name

    @property
    def tied_with_best(self) -> list[str]:
        """Runs that cannot be told from the best, itself included."""
        return [ranked.run.name for ranked in self.ranking if ranked.p_best > self.alpha]

    @property
    def tied_with_best_holm(self) -> list[str]:
        """The same after Holm's correction."""
        return [ranked.run.name for ranked in self.ranking if ranked.p_best_holm > self.alpha]

    @property
    def tied_with_reference(self) -> list[str]:
        """Runs that cannot be told from the reference, itself included; empty without a reference."""
        return [ranked.run.name for ranked in self.ranking if (ranked.p_reference or 0) > self.alpha]

    def to_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            "metric": "test accuracy",
            "n_test": self.n_test,
            "alpha": self.alpha,
            "test": "unpaired two-proportion z-test, two-sided, pooled variance",
            "best": self.best,
            "reference": self.reference,
            "tied_with_best": self.tied_with_best,
            "tied_with_best_holm": self.tied_with_best_holm,
            "tied_with_reference": self.tied_with_reference,
            "runs": [
                {"rank": rank, **asdict(ranked.run), **{k: v for k, v in vars(ranked).items() if k != "run"}}
                for rank, ranked in enumerate(self.ranking, start=1)
            ],
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """The ranking as a plain table below 100 columns, then what it shows in sentences."""
        tails = [ranked.run.name.partition("/")[2] or ranked.run.name for ranked in self.ranking]
        shared = _shared_start(tails)
        groups = {"b": self.tied_with_best, "h": self.tied_with_best_holm, "r": self.tied_with_reference}
        table = [("#", "method", "run", "accuracy %", "trainable", "GiB", "train s", "ties")]
        for rank, (ranked, tail) in enumerate(zip(self.ranking, tails, strict=True), start=1):
            table.append(
                (
                    str(rank),
                    _short(ranked.run.method, 16),
                    _short(tail.removeprefix(shared), 24),
                    f"{100 * ranked.run.accuracy:.1f} [{100 * ranked.low:.1f}, {100 * ranked.high:.1f}]",
                    _count(ranked.run.n_trainable),
                    f"{ranked.run.peak_memory_bytes / 2**30:.1f}",
                    f"{ranked.run.train_seconds:.0f}",
                    "".join(mark if ranked.run.name in group else "." for mark, group in groups.items()),
                )
            )
        return "\n".join([*_aligned(table), "", *self._sentences(shared)])

    def _sentences(self, shared: str) -> list[str]:
        n, level = len(self.ranking), f"{100 * self.alpha:g} %"
        sentences = [
            f"b: {len(self.tied_with_best)} of {n} runs cannot be told from the best, itself included.",
            f"h: {len(self.tied_with_best_holm)} after Holm's correction for {n - 1} comparisons.",
        ]
        if self.reference is not None:
            sentences.append(f"r: {len(self.tied_with_reference)} cannot be told from the reference, itself included.")
        sentences.append(f"Best: {_short(self.best, 90)}")
        if self.reference is not None:
            sentences.append(f"Reference: {_short(self.reference, 85)}")
        sentences.append(f"Unpaired two-proportion z-test at {level}, {self.n_test} test examples, one seed each;")
        sentences.append("95 % Wilson intervals; GiB: peak accelerator memory. Exploratory: the best was chosen here.")
        if shared:
            sentences.append(f"Left out of every run's name: {_short(shared, 60)}")
        return [*sentences, *(_short(note, 1000) for note in self.notes)]


def read_peft_results(
    folder: Path | str, n_test: int = GSM8K_TEST_EXAMPLES, alpha: float = 0.05, reference: str | None = None
) -> PeftResults:
    """Rank the PEFT result files in `folder` and find the runs that cannot be told apart.

    Args:
        n_test: examples behind each test accuracy; 1319 is the test split of GSM8K.
        alpha: level of the tests.
        reference: name of the run that all are compared with; if None, the best run of full fine-tuning, if any.
    Raises:
        RecordError: no results there, a file that is no such result, or accuracies that `n_test` cannot give.
    """
    if not (n_test > 0 and 0 < alpha < 1):
        raise RecordError(f"`n_test > 0` and `0 < alpha < 1` must hold, got {n_test} and {alpha}; change them")
    runs, notes = read_runs(Path(folder), n_test)
    runs.sort(key=lambda run: (-run.accuracy, run.name))
    chosen = _find_reference(runs, reference)
    p_best = _p_values(runs, runs[0], n_test)
    p_best_holm = [1.0, *holm(p_best[1:]).tolist()]
    p_reference = _p_values(runs, chosen, n_test) if chosen else [None] * len(runs)
    ranking = tuple(
        RankedRun(run, *wilson_interval(run.accuracy, n_test), *p_values)
        for run, *p_values in zip(runs, p_best, p_best_holm, p_reference, strict=True)
    )
    return PeftResults(ranking, n_test, alpha, chosen.name if chosen else None, tuple(notes))


def wilson_interval(share: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Where a true share lies, given the observed one; sound near 0 and 1 too.

    Source: Wilson, 1927, Journal of the American Statistical Association 22(158).

    >>> [round(end, 4) for end in wilson_interval(0.0, 100)]
    [0.0, 0.037]
    """
    z = float(ndtri(0.5 + confidence / 2))
    middle = share + z**2 / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def _p_values(runs: Sequence[PeftRun], other: PeftRun, n_test: int) -> list[float]:
    correct = round(other.accuracy * n_test)
    return [two_proportion_z_test(round(run.accuracy * n_test), n_test, correct, n_test) for run in runs]


def _find_reference(runs: Sequence[PeftRun], name: str | None) -> PeftRun | None:
    if name is None:
        return next((run for run in runs if run.method == FULL_FINE_TUNING), None)
    known = {run.name: run for run in runs}
    if name not in known:
        raise RecordError(f"the reference must be one of the runs, got `{name}`; {nearest(name, known)}")
    return known[name]


def _shared_start(names: Sequence[str]) -> str:
    """The start that all names have in common, up to a dash: it tells a reader of the table nothing."""
    first, last = min(names), max(names)
    same = 0
    while first != last and first[same : same + 1] == last[same : same + 1]:
        same += 1
    return first[: first.rfind("-", 0, same) + 1]


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    left = [heading in ("method", "run", "ties") for heading in table[0]]
    return [
        "  ".join(
            cell.ljust(width) if is_left else cell.rjust(width)
            for cell, width, is_left in zip(row, widths, left, strict=True)
        ).rstrip()
        for row in table
    ]


def _short(text: str, width: int) -> str:
    """`text` cut to `width`, without control characters, so that a file's content cannot steer a terminal."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in text)
    return plain if len(plain) <= width else plain[: width - 1] + "…"


def _count(number: int) -> str:
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)
