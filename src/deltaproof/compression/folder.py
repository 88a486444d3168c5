"""From a folder to a compressed file, with what that costs."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch

from deltaproof.compression.compeft import Scope, check_settings, compress
from deltaproof.compression.container import read_compressed
from deltaproof.compression.model_source import ModelSource
from deltaproof.compression.peft_source import CONFIG, PeftSource
from deltaproof.compression.sizes import Sizes, sizes_of
from deltaproof.compression.source import Source
from deltaproof.compression.sweep import ALPHAS, DENSITIES, Alpha, Sweep, search_alpha, sweep
from deltaproof.compression.trial import Trial, open_trial
from deltaproof.compression.tuned_source import Start
from deltaproof.errors import ConfigError, RecordError
from deltaproof.saving.folder import FACTS

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How an update is read."""

    start: Start | None = None
    """What LoRA's factors are counted from; None: `init` where the start can be had, `zero` otherwise."""
    base: str | None = None
    initial: Path | None = None
    """Of a PEFT adapter: the folder of the same adapter before its training."""
    embeddings: bool = False
    """Compress the embeddings of a whole model too."""
    trust_remote_code: bool = False
    with_scores: bool = True
    device: torch.device | None = None


@dataclass(frozen=True)
class Report:
    """What came of a compression."""

    path: str
    holds: str
    """`tuned`, `peft` or `model`."""
    density: float
    alpha: Alpha
    scope: str
    start: str
    relative_error: float
    """|tau - tau'| / |tau| over the compressed tensors."""
    sizes: Sizes
    metric: str | None = None
    score_before: float | None = None
    """On validation; None where the run's data are not at hand."""
    score_after: float | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "sizes": with_ratios(self.sizes)}


def with_ratios(sizes: Sizes) -> dict[str, Any]:
    """Sizes with the ratios that follow from them."""
    names = ("fp16_ratio", "fp32_ratio", "stored_ratio", "bits_per_value")
    return {**asdict(sizes), **{name: getattr(sizes, name) for name in names}}


@dataclass(frozen=True)
class Choices:
    """What a user asked for, read and checked."""

    densities: tuple[float, ...]
    alphas: tuple[Any, ...]
    scope: Scope
    start: Start | None


def read_choices(
    is_sweep: bool, density: str | None = None, alpha: str | None = None, scope: str = "per_tensor",
    start: str | None = None,
) -> Choices:  # fmt: skip
    """Settings as one types them: lists for a sweep, one value each otherwise.

    Raises:
        ConfigError: one cannot be read or is out of its range.
    """
    densities = tuple(_number(text, "--density") for text in (density or "").split(",") if text)
    alphas: tuple[Any, ...] = tuple(
        text if text in ("auto", "search") else _number(text, "--alpha") for text in (alpha or "").split(",") if text
    )
    densities = densities or (DENSITIES if is_sweep else (0.2,))
    alphas = alphas or (ALPHAS if is_sweep else ("auto",))
    if not is_sweep and (len(densities) > 1 or len(alphas) > 1):
        raise ConfigError(
            f"a file has one density and one alpha, got {density or '0.2'} and {alpha or 'auto'}; several go with "
            f"`--sweep`"
        )
    if is_sweep and "search" in alphas:
        raise ConfigError(
            "`--alpha search` chooses among values that `--sweep` and `--study` show one by one; leave it out"
        )
    if start not in (None, "init", "zero"):
        raise ConfigError(f"`--start` must be `init` or `zero`, got `{start}`; leave it out for the better one at hand")
    for each in densities:
        for value in alphas:
            check_settings(each, "auto" if value == "search" else value, scope)
    return Choices(densities, alphas, cast(Scope, scope), cast("Start | None", start))


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"`{option}` must be a number, got `{text}`; write for example `{option} 0.2`") from None


def open_source(folder: Path, options: Options) -> tuple[Source, Trial | None]:
    """What lies in a folder, as an update, and what scores it where that is possible.

    Args:
        folder: a tuned model that `train` or `compare` saved, a run folder, a PEFT adapter, or a tuned model.
    Raises:
        RecordError: it is none of these.
    """
    if not (folder / FACTS).is_file() and (folder / "best" / FACTS).is_file():
        folder = folder / "best"
    if (folder / FACTS).is_file():
        return open_trial(
            folder, options.start or "init", options.base, options.embeddings, options.trust_remote_code,
            options.device, options.with_scores,
        )  # fmt: skip
    if (folder / CONFIG).is_file():
        if options.start == "init" and options.initial is None:
            raise ConfigError(
                f"`--start init` needs the start, and PEFT keeps none of it in `{folder}`; save the adapter before its "
                f"training too and name that folder with `--initial`, or leave `--start` out"
            )
        return PeftSource(folder, None if options.start == "zero" else options.initial), None
    if (folder / "config.json").is_file():
        return ModelSource(folder, options.base, options.embeddings), None
    raise RecordError(
        f"`{folder}` must hold a tuned model, a run's `best` or a PEFT adapter, found none of {FACTS}, {CONFIG} and "
        f"config.json; check the path"
    )


def compress_folder(
    folder: Path, out: Path, density: float = 0.2, alpha: Alpha | Literal["search"] = "auto",
    scope: Scope = "per_tensor", allow_erased: bool = False, options: Options | None = None, say: Say = lambda text:
    None,
) -> Report:  # fmt: skip
    """Compress what lies in a folder into a file, read the file back, and score both where validation rows are at hand.

    Raises:
        ConfigError, CompressionError, RecordError: as in `compress` and `open_source`.
    """
    check_settings(density, "auto" if alpha == "search" else alpha, scope)
    source, trial = open_source(folder, options or Options())
    if alpha == "search" and trial is None:
        raise ConfigError(
            f"`alpha=search` scores on validation rows, `{folder}` has none beside it; give a tuned model within its "
            f"run "
            f"folder, or `--alpha auto`, which needs no data"
        )
    found = compress(source, density, "auto" if alpha == "search" else alpha, scope, allow_erased)
    before = trial.before() if trial is not None else None
    notes = list(found.notes)
    if alpha == "search" and trial is not None:
        found, score = search_alpha(found, trial, ALPHAS)
        say(f"alpha {found.compressed.facts['settings']['alpha']}: {trial.metric.name} {score:.4f}")
        notes.append("alpha was chosen on the validation rows that the score is of, so that score is a little too good")
    file_bytes = found.compressed.write(out)
    written = read_compressed(out)
    after = trial.after(written) if trial is not None else None
    settings = written.facts["settings"]
    return Report(
        str(out), str(written.facts["holds"]), density, settings["alpha"], scope, str(written.facts["start"]),
        found.relative_error, sizes_of(written, file_bytes), trial.metric.name if trial else None, before, after,
        tuple(notes),
    )  # fmt: skip


def sweep_folder(
    folder: Path, densities: Sequence[float], alphas: Sequence[Alpha] = ALPHAS, scope: Scope = "per_tensor",
    allow_erased: bool = False, options: Options | None = None, say: Say = lambda text: None,
) -> Sweep:  # fmt: skip
    """Score density times alpha on the validation rows of the run that a tuned model is of.

    Raises:
        ConfigError: there are no such rows.
    """
    for density in densities:
        check_settings(density, "auto", scope)
    source, trial = open_source(folder, options or Options())
    if trial is None:
        raise ConfigError(
            f"`--sweep` scores on validation rows, `{folder}` has none beside it; give a tuned model within its run "
            f"folder, "
            f"such as `runs/reviews/best`"
        )
    return sweep(source, trial, densities, alphas, scope, allow_erased, say)
