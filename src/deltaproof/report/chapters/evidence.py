"""Chapter: the evidence for and against each claim, and what follows from it for this user."""

from deltaproof.evidence import Evidence, evidence
from deltaproof.evidence.claim import Claim, Finding
from deltaproof.evidence.commands import ABOUT_PLAN
from deltaproof.evidence.judging import AGREEMENT
from deltaproof.evidence.words import interval, number, whole
from deltaproof.report.chapter import Chapter
from deltaproof.report.grid import Cell, Grid, Section, grid
from deltaproof.report.numbers import SIGNS
from deltaproof.report.study import Study

STUDIED = (
    "expressivity", "spectra", "displacement", "forgetting", "robustness", "scale_parameters", "scale_examples",
    "compression", "merging",
)  # fmt: skip
NOTHING = Cell("–")


def evidence_chapter(study: Study) -> Chapter | None:
    """None where no study was made: then there is nothing but the comparison, which the page shows already."""
    if not any(name in study.studies for name in STUDIED):
        return None
    found = evidence(study.store, study.table, called=study.store.folder.resolve().name)
    blocks = [_claims(found), _findings(found), _next(found), _rules(found)]
    return Chapter(
        "evidence",
        "For and against full fine-tuning",
        (found.advice,),
        tuple(block for block in blocks if block is not None),
        (f"Intervals are of 95 %. How methods are taken together: {AGREEMENT}.",),
    )


def _claims(found: Evidence) -> Grid:
    columns = ("Claim", "Verdict here", "What was found", "Seeds", "Not measured, and the command that does")
    groups = (
        ("What arXiv 2505.22355 claims", found.paper),
        ("What others hold against it", found.contesting),
        ("What arXiv 2311.13171 claims of compressed updates", found.compressing),
    )
    sections = tuple(Section(tuple(_claim(claim) for claim in claims), heading) for heading, claims in groups if claims)
    note = (
        "The paper's formulas are known in part only; each claim is tested in a form of our own, which stands further "
        "down with its rule. Supported and contradicted are of these runs, not of the theorem."
    )
    return Grid("Each claim, and what these runs say of it", columns, sections, (0, 1, 2, 4), note)


def _claim(claim: Claim) -> tuple[Cell, ...]:
    seeds = Cell(str(claim.n_seeds)) if claim.n_seeds else NOTHING
    missing = NOTHING
    if claim.missing:
        commands = "; ".join(dict.fromkeys(each.command for each in claim.missing if each.command))
        missing = Cell("; ".join(each.what for each in claim.missing), commands)
    numbers = [f"{each.of} {whole(each.value)}" for each in claim.findings if each.counts and each.value]
    found = Cell(_sentence(claim.because), "; ".join(numbers))
    return Cell(claim.statement.name, claim.statement.title), _verdict(claim.verdict), found, seeds, missing


def _verdict(verdict: str, remark: str = "") -> Cell:
    return Cell(verdict, remark, verdict.replace(" ", "-"), SIGNS[verdict])


def _findings(found: Evidence) -> Grid | None:
    sections = tuple(
        Section(
            tuple(_finding(finding) for finding in claim.findings), f"{claim.statement.name}: {claim.statement.title}"
        )
        for claim in found.claims
        if claim.findings
    )
    columns = ("Method", "Measured", "Value", "Seeds", "Verdict", "Because")
    note = "Rows marked “beside” are shown for comparison and do not enter the verdict on the claim."
    return Grid("What was measured, method by method", columns, sections, (0, 1, 4, 5), note) if sections else None


def _finding(finding: Finding) -> tuple[Cell, ...]:
    value = NOTHING
    if finding.value is not None:
        value = Cell(number(finding.value.mean, finding.value.unit), interval(finding.value))
    beside = "" if finding.counts or finding.verdict == "not applicable" else "beside"
    return (
        Cell(finding.of),
        Cell(finding.quantity),
        value,
        Cell(str(finding.n_seeds)) if finding.n_seeds else NOTHING,
        _verdict(finding.verdict, beside),
        Cell(finding.because),
    )


def _next(found: Evidence) -> Grid | None:
    rows = [[Cell(f"{at}. {step.do}"), Cell(step.command or "–")] for at, step in enumerate(found.next, 1)]
    has_plan = any("plan.toml" in step.command for step in found.next)
    note = f"{ABOUT_PLAN}." if has_plan else ""
    return grid("What to do next", ("Step", "Command"), rows, (0, 1), note) if rows else None


def _rules(found: Evidence) -> Grid:
    rows = [
        [
            Cell(claim.statement.name, claim.statement.source),
            Cell(claim.statement.says),
            Cell(claim.statement.tested_as),
            Cell(claim.statement.rule),
            Cell(claim.statement.not_shown),
        ]
        for claim in found.claims
    ]
    columns = (
        "Claim",
        "What its source says",
        "Tested here (our form)",
        "Rule of the verdict",
        "What does not follow",
    )
    return grid("What is claimed, and how it is judged", columns, rows, (0, 1, 2, 3, 4))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "." if text else text
