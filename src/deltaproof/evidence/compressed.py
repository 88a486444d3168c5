"""What is claimed of compressed updates: small at little loss, better when larger, as good to merge and to compose."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from deltaproof.errors import DeltaproofError
from deltaproof.evidence import commands
from deltaproof.evidence.claim import NOT_MEASURED, Claim, Finding, Missing, Span, Statement, Verdict
from deltaproof.evidence.judging import overall, seeded
from deltaproof.evidence.measured import Measured, span
from deltaproof.metrics import per_unit
from deltaproof.stats import compare

SOURCE = "Yadav et al., 2023, arXiv 2311.13171 (ComPEFT)"
LEAST = 8.0
"""Times smaller than fp16: where the range of the paper's abstract, 8 to 50, begins."""
SMALL = Statement(
    name="Small",
    title="8 to 50 times smaller at little loss",
    source=SOURCE,
    says="Updates shrink to between an eighth and a fiftieth of their size with little loss of score.",
    tested_as=(
        "Test score of each compressed update minus that of the update as tuned, paired by example, at each density; "
        "scope and scale chosen on validation. Ratios are of the compressed tensors in fp16 over their code."
    ),
    rule=(
        "Supported for a method if some density that is at least 8 times smaller is equivalent within the margin or "
        "better; contradicted if all such densities are worse."
    ),
    not_shown=(
        "The paper compresses models of 200 million parameters and more, and most of its ratios are of adapters alone; "
        "a file also holds the head and all else that is kept whole."
    ),
)
LARGER = Statement(
    name="Larger",
    title="Better when the model is larger",
    source=SOURCE,
    says="The larger the base, the more its updates can be compressed, and the less the scale matters.",
    tested_as="The same study on two or more models of one family, which no single run folder holds.",
    rule="Not applicable unless models of several sizes of one family were compressed.",
    not_shown="One model of one size says nothing of others.",
)
MERGED = Statement(
    name="Merges",
    title="Compressed experts merge as well",
    source=SOURCE,
    says="Merging compressed experts is as good as merging the uncompressed ones, or better.",
    tested_as=(
        "Two merges of the same experts by the same rule, one of their compressed files: the difference of their test "
        "scores, paired by example."
    ),
    rule=(
        "Supported if the merge of compressed experts is equivalent within the margin or better; contradicted if it is "
        "worse."
    ),
    not_shown="Other rules, other weights or more experts may come out otherwise.",
)
COMPOSED = Statement(
    name="Composes",
    title="Composition for a new task is kept",
    source=SOURCE,
    says="Compressed experts, put together on a few examples of a task that none was tuned on, do as well.",
    tested_as=(
        "Two compositions of the same experts for a held-out task, in the manner of LoraHub (arXiv 2307.13269), one of "
        "their compressed files: the difference of their test scores, paired by example."
    ),
    rule="As for merges.",
    not_shown=(
        "LoraHub composes language models that need no new head; a classifier's head is fitted to the same few "
        "examples here, and does much of the work."
    ),
)
Result = dict[str, Any]


def small(m: Measured) -> Claim:
    study = m.found("compression")
    if not study:
        return Claim(SMALL, "cannot tell", NOT_MEASURED, missing=(_to_compress(m),))
    findings = [finding for entry in study["contestants"] for finding in _of_method(study, entry, m.metric.unit)]
    verdict = overall(findings)
    few = any(finding.counts and finding.n_seeds < 2 for finding in findings)
    missing = (Missing("models of other seeds", commands.compare(m, "--keep all")),) if few else ()
    return Claim(SMALL, verdict, f"{_WORDS[verdict]}: {told(findings)}", tuple(findings), missing)


def larger(m: Measured) -> Claim:
    return Claim(LARGER, "not applicable", "one model was compressed; the claim compares sizes of one family")


def merged(m: Measured) -> Claim:
    return _of_merges(m, MERGED, composed=False)


def composed(m: Measured) -> Claim:
    return _of_merges(m, COMPOSED, composed=True)


_WORDS = {
    "supported": "small files score as well",
    "contradicted": "files that small score worse",
    "cannot tell": "these runs cannot tell",
    "not applicable": "nothing was small enough to say",
}


def told(findings: Sequence[Finding]) -> str:
    """The findings that count, in half a sentence each."""
    counted = [finding for finding in findings if finding.counts]
    return "; ".join(f"{finding.of}, {finding.because}" for finding in counted) or "no method was compressed"


def _to_compress(m: Measured) -> Missing:
    return Missing("updates compressed at several densities", commands.compress(m))


def as_good(verdict: str, n_seeds: int = 2) -> Verdict:
    """Of a claim that a contestant is no worse.

    >>> as_good("equivalent"), as_good("worse"), as_good("better", 1)
    ('supported', 'contradicted', 'cannot tell')
    """
    found: dict[str, Verdict] = {"equivalent": "supported", "better": "supported", "worse": "contradicted"}
    return found.get(verdict, "cannot tell") if n_seeds > 1 else "cannot tell"


def deciding(verdicts: dict[str, str], ratios: dict[str, float]) -> str | None:
    """Of the densities that are small enough: the smallest that is shown to be as good, else the largest.

    >>> deciding({"0.05": "worse", "0.2": "equivalent", "0.5": "equivalent"}, {"0.05": 47, "0.2": 17, "0.5": 10})
    '0.2'
    """
    small_enough = sorted((name for name in verdicts if ratios[name] >= LEAST), key=float)
    good = [name for name in small_enough if as_good(verdicts[name]) == "supported"]
    return next(iter(good), small_enough[-1] if small_enough else None)


def decided(verdicts: dict[str, str], ratios: dict[str, float]) -> Verdict:
    """Supported by one density that is small enough and as good; contradicted where all that are so small are worse.

    >>> decided({"0.05": "worse", "0.2": "cannot tell"}, {"0.05": 47, "0.2": 17})
    'cannot tell'
    """
    found = [as_good(verdict) for name, verdict in verdicts.items() if ratios[name] >= LEAST]
    if not found:
        return "not applicable"
    if "supported" in found:
        return "supported"
    return "contradicted" if set(found) == {"contradicted"} else "cannot tell"


def _of_method(study: Result, entry: Result, unit: str) -> list[Finding]:
    """The density that decides, and the others beside it."""
    label, n_seeds = entry["label"], entry["n_seeds"]
    ratios = {name: _ratio(study, label, name, "fp16_ratio") for name in entry["densities"]}
    verdicts = {name: str(found["verdict"]) for name, found in entry["densities"].items()}
    key = deciding(verdicts, ratios)
    findings = []
    for name, found in entry["densities"].items():
        whole_file = _ratio(study, label, name, "stored_ratio")
        because = (
            f"density {name}: {ratios[name]:.0f} times smaller than fp16, the whole file {whole_file:.1f} times "
            f"smaller than as stored; {found['verdict']}"
        )
        verdict = as_good(verdicts[name], n_seeds)
        if name == key:
            verdict = decided(verdicts, ratios) if n_seeds > 1 else "cannot tell"
        quantity = "compressed minus as tuned, test"
        value = span(found, unit, value="difference")
        findings.append(Finding(label, quantity, value, n_seeds, verdict, seeded(because, n_seeds), counts=name == key))
    return findings


def _ratio(study: Result, label: str, name: str, field: str) -> float:
    found = [at["sizes"][field] for model in study["models"] if model["label"] == label
             for at in model["densities"] if f"{at['density']:g}" == name and at["chosen"] is not None]  # fmt: skip
    return float(np.mean(found))


def pairs_of(merges: Sequence[Result], composed: bool) -> list[tuple[Result, Result]]:
    """Merges of the same experts by the same rule, one of compressed files and one not: (compressed, uncompressed)."""
    found = []
    there = [merge for merge in merges if (merge["chosen_on"] == "examples") == composed]
    for small_one in there:
        for whole in there:
            alike = _settings(small_one) == _settings(whole) and len(small_one["experts"]) == len(whole["experts"])
            if alike and all(
                _same(one, other) and one["stored_bytes"] < other["stored_bytes"]
                for one, other in zip(small_one["experts"], whole["experts"], strict=True)
            ):
                found.append((small_one, whole))
    return found


def _settings(merge: Result) -> tuple[Any, ...]:
    """What two merges share that are held against each other; weights may have been chosen for each."""
    recipe = merge["recipe"]
    chosen = merge["chosen_on"]
    weights = None if chosen else tuple(expert["weight"] for expert in merge["experts"])
    return recipe["how"], recipe.get("density"), recipe.get("rank"), recipe.get("seed"), chosen, weights


def _same(one: Result, other: Result) -> bool:
    """Whether two entries are of one tuned model; those without a key are told apart by their data and method."""
    if one["key"] and other["key"]:
        return bool(one["key"] == other["key"])
    return bool((one["contestant"], one["data"]) == (other["contestant"], other["data"]) and one["data"])


def times_smaller(small_one: Result, whole: Result) -> float:
    """All files of the uncompressed experts over those of the compressed ones."""
    sizes = [sum(expert["stored_bytes"] for expert in merge["experts"]) for merge in (whole, small_one)]
    return float(sizes[0] / sizes[1])


def difference_of(m: Measured, small_one: Result, whole: Result) -> Any:
    """The merge of compressed experts less the other on the test rows, paired; None where one was not asked of them."""
    try:
        ours, theirs = (per_unit(m.metric, m.store.predictions(merge["key"])) for merge in (small_one, whole))
    except DeltaproofError:
        return None
    alpha = m.experiment["alpha"]
    both = {"whole": theirs[None, :], "small": ours[None, :]}
    return compare(both, "whole", m.margin, alpha, m.metric.higher_is_better, m.metric.unit)["small"]


def _of_merges(m: Measured, statement: Statement, composed: bool) -> Claim:
    study = m.found("merging")
    pairs = pairs_of(study.get("merges", ()), composed)
    if not pairs:
        what = "a composition" if composed else "a merge"
        missing = Missing(f"{what} of compressed experts, and the same of the uncompressed ones", "")
        return Claim(statement, "cannot tell", NOT_MEASURED, missing=(missing,))
    findings = []
    for small_one, whole in pairs:
        of = f"{small_one['recipe']['how']} of {len(whole['experts'])} experts"
        found = difference_of(m, small_one, whole)
        quantity = "of compressed experts minus of uncompressed ones, test"
        files = f"files {times_smaller(small_one, whole):.1f} times smaller"
        if found is None:
            why = f"{files}; the test rows were not asked, on validation {_on_validation(small_one, whole):+.3f}"
            findings.append(Finding(of, quantity, None, 1, "cannot tell", why))
            continue
        value = Span(found.difference, found.low, found.high, m.metric.unit)
        because = seeded(f"{files}; {found.verdict}", 1)
        findings.append(Finding(of, quantity, value, 1, "cannot tell", because))
    return Claim(statement, overall(findings), f"these runs cannot tell: {told(findings)}", tuple(findings))


def _on_validation(small_one: Result, whole: Result) -> float:
    return float(small_one["validation"]["merged"] - whole["validation"]["merged"])
