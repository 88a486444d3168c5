"""Write the reference pages from the code: `python docs/generate.py`. With --check, fail if they are not up to date."""

import sys
from pathlib import Path
from typing import Any

import typer

from deltaproof.cli.main import app
from deltaproof.experiments.budget import Budget
from deltaproof.experiments.plan import Plan
from deltaproof.methods import METHODS
from deltaproof.methods.describe import describe
from deltaproof.metrics import METRICS, default_metrics
from deltaproof.settings import Settings
from deltaproof.training.settings import Training

REFERENCE = Path(__file__).parent / "reference"
MADE = "<!-- made by docs/generate.py from the code; change it there -->\n\n"


def methods_page() -> str:
    """Every method of ours: a table, then one section each."""
    lines = [
        "# Methods",
        "",
        "Every method trains the task's head too. `peft` stands for every method of the installed peft.",
        "",
    ]
    rows = [["method", "trains", "tuning starts at", "when"]]
    sections = []
    for name in sorted(METHODS):
        facts = describe(name)
        rows.append(
            [
                f"[`{name}`](#{name})",
                facts["trains"],
                facts["learning_rate"].removeprefix("tuning starts at "),
                facts["advice"],
            ]
        )
        sections += [
            f"## {name}",
            "",
            facts["idea"],
            "",
            f"    {facts['equation']}",
            "",
            f"Source: {facts['paper']}.",
            "",
        ]
        if facts["fields"]:
            fields = [["field", "type", "default", "meaning"]]
            fields += [
                [f"`{field['name']}`", f"`{field['type']}`", f"`{field['default']}`", field["meaning"]]
                for field in facts["fields"]
            ]
            sections += [table(fields), ""]
    return "\n".join([*lines, table(rows), "", *sections])


def plan_page() -> str:
    """The fields of a plan and of its tables."""
    lines = [
        "# Plan",
        "",
        "The fields of a TOML plan, of `deltaproof.compare(...)`, and, with dashes, of the command line.",
        "",
    ]
    for title, kind in (("Top level", Plan), ("[training]", Training), ("[budget]", Budget)):
        lines += [f"## {title}", "", table([["field", "default", "meaning"], *fields_of(kind)]), ""]
    return "\n".join(lines)


def fields_of(kind: type[Settings]) -> list[list[str]]:
    rows = []
    for name, field in kind.model_fields.items():
        default = "required" if field.is_required() else f"`{field.get_default(call_default_factory=True)!r}`"
        rows.append([f"`{name}`", default if len(default) < 30 else "", field.description or ""])
    return rows


def metrics_page() -> str:
    """Metrics by name, and the defaults by kind of task."""
    rows = [["metric", "for", "better", "what it is"]]
    for name, metric in METRICS.items():
        rows.append(
            [f"`{name}`", ", ".join(metric.kinds), "higher" if metric.higher_is_better else "lower", metric.summary]
        )
    defaults = [
        f"- {kind}: {', '.join(default_metrics(kind))}" for kind in ("classification", "regression", "multilabel")
    ]
    return "\n".join(["# Metrics", "", table(rows), "", "Reported by default, the first deciding:", "", *defaults, ""])


def commands_page() -> str:
    """Every command with its arguments and options."""
    lines = ["# Commands", ""]
    root: Any = typer.main.get_command(app)
    for name, command in commands(root):
        text = (command.help or "").strip().split("\n\n")
        lines += [f"## deltaproof {name}", "", *("\n\n".join(part.strip() for part in text).splitlines()), ""]
        rows = [["", "meaning"]]
        for parameter in command.params:
            names = (
                ", ".join(f"`{option}`" for option in parameter.opts)
                if parameter.param_type_name == "option"
                else f"`{parameter.name.upper()}`"
            )
            rows.append([names, (getattr(parameter, "help", "") or "").replace("\\[", "[")])
        lines += [table(rows), ""]
    return "\n".join(lines)


def commands(group: Any, prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found += commands(command, f"{prefix}{name} ")
        else:
            found.append((f"{prefix}{name}", command))
    return found


def table(rows: list[list[str]]) -> str:
    """A Markdown table; the first row is its head."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def main() -> None:
    pages = {
        "methods.md": methods_page(),
        "plan.md": plan_page(),
        "metrics.md": metrics_page(),
        "commands.md": commands_page(),
    }
    stale = []
    for name, text in pages.items():
        path, content = REFERENCE / name, MADE + text.rstrip() + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            stale.append(name)
        if "--check" not in sys.argv:
            path.parent.mkdir(exist_ok=True)
            path.write_text(content, encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.exit(f"docs/reference is out of date ({', '.join(stale)}); run `python docs/generate.py`")


if __name__ == "__main__":
    main()
