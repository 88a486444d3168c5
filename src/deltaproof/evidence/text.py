"""The evidence as a terminal shows it."""

import textwrap
from collections.abc import Iterator

from deltaproof.evidence.claim import NOT_MEASURED, Claim, Finding
from deltaproof.evidence.commands import ABOUT_PLAN
from deltaproof.evidence.found import Found
from deltaproof.evidence.judging import AGREEMENT
from deltaproof.evidence.words import whole
from deltaproof.experiments import wording

_STEP = "   "


def to_text(found: Found, width: int = 100) -> str:
    """Verdicts at a glance, each claim with its numbers, the rules, then the advice and the next commands."""
    lines = [
        f"Evidence on {found.model} and {found.data}: {found.metric.replace('_', ' ')}, margin "
        f"{wording.amount(found.margin, found.unit)}",
        "",
        *_glance(found),
    ]
    for heading, claims in (
        ("What the paper claims (arXiv 2505.22355), in forms of our own", found.paper),
        ("What others hold against it", found.contesting),
        ("What ComPEFT claims of compressed updates (arXiv 2311.13171)", found.compressing),
    ):
        if not claims:
            continue
        lines += ["", _underlined(heading)]
        for claim in claims:
            lines += ["", *_claim(claim, width)]
    lines += ["", _underlined("How the verdicts are reached"), "", *_rules(found, width)]
    lines += ["", _underlined("What follows"), "", *_wrapped(found.advice, width)]
    if found.next:
        lines += ["", _underlined("What to do next"), "", *_next(found, width)]
    return "\n".join(lines)


def _underlined(heading: str) -> str:
    return f"{heading}\n{'─' * len(heading)}"


def _glance(found: Found) -> Iterator[str]:
    names, titles = (
        max(len(text) for text in texts)
        for texts in zip(*((claim.statement.name, claim.statement.title) for claim in found.claims), strict=True)
    )
    for claim in found.claims:
        statement = claim.statement
        named = f"{statement.name:{names}}  {statement.title:{titles}}"
        beside = NOT_MEASURED if claim.because == NOT_MEASURED else _seeds(claim.n_seeds)
        yield f"{named}  {claim.verdict:14}  {beside}".rstrip()


def _seeds(n: int) -> str:
    return f"{n} seeds" if n > 1 else "1 seed" if n else ""


def _claim(claim: Claim, width: int) -> Iterator[str]:
    statement = claim.statement
    yield f"{statement.name} · {statement.title}: {claim.verdict}"
    yield from _wrapped(f"{_capital(claim.because)}.", width, _STEP)
    groups: dict[tuple[str, bool], list[Finding]] = {}
    for finding in claim.findings:
        groups.setdefault((finding.quantity, finding.counts), []).append(finding)
    for (quantity, counts), findings in groups.items():
        yield from _group(quantity, counts, findings, width)
    yield from _wrapped(f"Not shown: {statement.not_shown}", width, _STEP)
    for missing in claim.missing:
        yield from _wrapped(f"Not measured: {missing.what}", width, _STEP)
        if missing.command:
            yield f"{_STEP * 2}{missing.command}"


def _group(quantity: str, counts: bool, findings: list[Finding], width: int) -> Iterator[str]:
    """Findings of one quantity: a line each with its number, and the reason below it."""
    is_beside = not counts and any(finding.verdict != "not applicable" for finding in findings)
    yield from _wrapped(f"{_capital(quantity)}{' (beside, not counted)' if is_beside else ''}:", width, _STEP)
    names = min(28, max(len(finding.of) for finding in findings))
    for finding in findings:
        number = f"  {whole(finding.value)}" if finding.value else ""
        yield f"{_STEP * 2}{finding.of:{names}}  {finding.verdict:14}{number}".rstrip()
        yield from _wrapped(finding.because, width, _STEP * 3)


def _rules(found: Found, width: int) -> Iterator[str]:
    for claim in found.claims:
        statement = claim.statement
        yield from _wrapped(f"{statement.name}: {statement.tested_as} {statement.rule}", width, hang=_STEP)
    yield from _wrapped(f"One seed is never a verdict. {_capital(AGREEMENT)}.", width)


def _next(found: Found, width: int) -> Iterator[str]:
    for number, step in enumerate(found.next, 1):
        yield from _wrapped(f"{number}. {_capital(step.do)}", width, hang=_STEP)
        if step.command:
            yield f"{_STEP}{step.command}"
    if any("plan.toml" in step.command for step in found.next):
        yield from _wrapped(f"{ABOUT_PLAN}.", width)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _wrapped(text: str, width: int, indent: str = "", hang: str = "") -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent + hang, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
