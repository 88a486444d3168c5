"""T2: an upper bound on how far the answers can move. Do they keep to it, and how tight is it?"""

from typing import Any

from deltaproof.evidence import commands
from deltaproof.evidence.claim import NOT_MEASURED, Claim, Finding, Missing, Span, Statement, Verdict
from deltaproof.evidence.judging import ONE_SEED, overall
from deltaproof.evidence.measured import Measured
from deltaproof.evidence.words import number

STATEMENT = Statement(
    name="T2",
    title="Answers keep to an upper bound",
    source="arXiv 2505.22355, theorem 2: its assumptions known from a secondary source, its right-hand side not",
    says=(
        "With layers of bounded norm and slope, the distance |f(x) − f0(x)| between the tuned and the base model's "
        "answer has an upper bound in the norms of what was trained."
    ),
    tested_as=(
        "Our derivation from those assumptions: |f(x) − f0(x)| against [Π L(|W| + |D|) − Π L |W|] |x|, layer by "
        "layer, with this model's norms, for every validation example."
    ),
    rule="Supported for a method if no example of any seed moves further than the bound; contradicted if one does.",
    not_shown=(
        "The bound holds for full fine-tuning by the same inequality, so it is no upper bound relative to full, and "
        "a bound that is kept by many powers of ten says nothing of what a method can express. Attention and norms "
        "have no largest slope: it is evaluated formally."
    ),
)


def displaced(m: Measured) -> Claim:
    methods = m.by_label("displacement")
    if not methods:
        missing = Missing("displacement and bound", commands.capacity(m))
        return Claim(STATEMENT, "cannot tell", NOT_MEASURED, missing=(missing,))
    findings = [_finding(entry) for entry in methods.values()]
    verdict = overall(findings)
    more = [Missing("a second seed", commands.more_seeds(m))] if any(f.n_seeds == 1 for f in findings) else []
    return Claim(STATEMENT, verdict, _because(m, methods, findings, verdict), tuple(findings), tuple(more))


def _finding(entry: dict[str, Any]) -> Finding:
    label, bound, n_seeds = entry["label"], entry["bound"], len(entry["keys"])
    quantity = "displacement over its bound, median and largest"
    if bound is None:
        moved = entry["displacement"]["mean"] > 0
        why = entry["why_no_bound"] if moved else "its answers are the base's"
        return Finding(label, quantity, None, n_seeds, "not applicable", why or "no finite bound")
    used = Span(bound["log10_tightness"], None, bound["log10_tightness_high"], "log10")
    keeps = bound["log10_tightness_high"] <= 0
    verdict: Verdict = "supported" if keeps else "contradicted"
    if not keeps and entry["not_in_bound"]:
        verdict = "cannot tell"
    because = f"the bound allows {number(bound['log10'], 'log10')}, {entry['displacement']['mean']:.3g} was measured"
    if entry["not_in_bound"]:
        because += f"; the bound leaves out {len(entry['not_in_bound'])} changes"
    if n_seeds < 2:
        verdict, because = "cannot tell", f"{ONE_SEED}; {because}"
    return Finding(label, quantity, used, n_seeds, verdict, because)


def _because(m: Measured, methods: dict[str, dict[str, Any]], findings: list[Finding], verdict: Verdict) -> str:
    used = [finding.value.mean for finding in findings if finding.value is not None]
    if verdict == "not applicable" or not used:
        return "no method here has a bound"
    kept = {
        "supported": "every displacement keeps to its bound",
        "contradicted": "a displacement exceeds its bound",
        "cannot tell": "these runs cannot tell",
    }[verdict]
    low, high = number(min(used), "log10"), number(max(used), "log10")
    said = f"{kept}, of which a median example uses {low if low == high else f'{low} to {high}'}"
    full = methods.get(m.full or "")
    moved = full["displacement"]["mean"] if full else 0
    if moved > 0:
        ratios = [f"{label} {entry['displacement']['mean'] / moved:#.2g}" for label, entry in methods.items()
                  if label != m.full]  # fmt: skip
        said += f"; moved, as a multiple of full's displacement: {', '.join(ratios)}" if ratios else ""
    return said
