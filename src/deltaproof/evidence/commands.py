"""The commands that measure what is missing, for the run folder at hand."""

import shlex

from deltaproof.evidence.measured import Measured

PLAN = "plan.toml"
ABOUT_PLAN = "`plan.toml` stands for the plan of this run, which its `report.html` holds under “Repeat it”"


def capacity(m: Measured, ranks: str = "") -> str:
    return f"deltaproof capacity {_folder(m)}" + (f" --ranks {ranks}" if ranks else "")


def compress(m: Measured) -> str:
    return f"deltaproof compress {_folder(m)} --study"


def attack(m: Measured) -> str:
    return f"deltaproof attack {_folder(m)} --perturbations all"


def by_rank(m: Measured, ranks: str = "1,2,4,8,16,32") -> str:
    return f"deltaproof scale {PLAN} --rank {ranks} --out {_folder(m)}"


def by_examples(m: Measured) -> str:
    return f"deltaproof scale {PLAN} --examples 64,256,1k,4k,all --out {_folder(m)}"


def by_examples_at_equal(m: Measured, equal: str) -> str:
    """In a folder of its own, since a folder holds one sweep over examples."""
    return f"deltaproof scale {PLAN} --examples 64,256,1k,4k,all --equal {equal} --out {_folder(m, f'-equal-{equal}')}"


def compare(m: Measured, options: str) -> str:
    """The same comparison with something changed; what stands in the folder is not run again."""
    return f"deltaproof compare {PLAN} {options} --out {_folder(m)}"


def more_seeds(m: Measured) -> str:
    return compare(m, f"--seeds {max(3, int(m.experiment['plan'].get('seeds') or 1) + 2)} --keep all")


def _folder(m: Measured, ending: str = "") -> str:
    return shlex.quote(f"{m.called}{ending}")
