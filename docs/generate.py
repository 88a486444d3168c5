"""Write the reference pages from the code: `python docs/generate.py`. With --check, fail if they are not up to date."""

import json
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
from deltaproof.testing.capability_table import TITLES, reasons
from deltaproof.testing.capability_table import rows as capability_rows
from deltaproof.training.settings import Training

REFERENCE = Path(__file__).parent / "reference"
MADE = "<!-- made by docs/generate.py from the code; change it there -->\n\n"


def methods_page() -> str:
    """Every method of ours: a table, what a step costs, then one section each."""
    rows = [["method", "what it does", "trains", "tuning starts at"]]
    sections = []
    for name in sorted(METHODS):
        facts = describe(name)
        rate = facts["learning_rate"].removeprefix("tuning starts at ")
        rows.append([f"[`{name}`](#{name})", facts["idea"], facts["trains"], rate])
        sections += method_section(name, facts)
    return "\n".join([
        "# Methods",
        "",
        "Every method trains the task's head too. `peft` stands for every method of the installed peft; those that "
        "share their name with one of ours are called `peft_lora`, `peft_vera` and so on. What each can do, measured: "
        "[capabilities](capabilities.md).",
        "",
        table(rows),
        "",
        *costs(),
        *sections,
    ])  # fmt: skip


def method_section(name: str, facts: dict[str, Any]) -> list[str]:
    """One method: idea, equation, facts, fields."""
    lines = [f"## {name}", "", facts["idea"], "", f"    {facts['equation']}", ""]
    labels = {
        "start": "Starts as", "where": "Goes to", "trains": "Trains", "learning_rate": "Learning rate",
        "advice": "Use it", "differences": "Differs from the paper", "paper": "Source",
    }  # fmt: skip
    lines += [f"- {label}: {sentence(facts[key])}" for key, label in labels.items()]
    if facts["fields"]:
        fields = [["field", "type", "default", "meaning"]]
        fields += [
            [f"`{field['name']}`", f"`{field['type']}`", f"`{field['default']}`", field["meaning"]]
            for field in facts["fields"]
        ]
        lines += ["", table(fields)]
    return [*lines, ""]


def sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def costs() -> list[str]:
    """What a step of each method costs, where that was measured: `method_costs.json`, made by benchmarks/methods.py."""
    path = REFERENCE / "method_costs.json"
    if not path.exists():
        return []
    stored = json.loads(path.read_text(encoding="utf-8"))
    rows = [["method", "trained", "ms per step", "step, full fine-tuning = 1", "step, peft's form = 1", "peak memory"]]
    for name, found in stored["methods"].items():
        seconds, memory = found.get("seconds_per_step"), found.get("peak_memory_bytes")
        rows.append([
            f"`{found.get('as', name)}`",
            f"{found['n_trainable']:,}",
            f"{1000 * seconds:.1f}" if seconds is not None else "",
            ratio(found.get("step_ratio")),
            ratio(found.get("step_ratio_to_peft")),
            f"{memory / 1e6:,.0f} MB" if memory is not None else "",
        ])  # fmt: skip
    rows = [[cell for cell, used in zip(row, zip(*rows[1:], strict=True), strict=True) if any(used)] for row in rows]
    made = ", ".join(f"{key} {value}" for key, value in stored["made"].items())
    lines = [
        "## What a step costs",
        "",
        f"Measured by `benchmarks/methods.py`: {made}. Ratios are the median over rounds taken in turns, with their "
        f"quartiles; below 1 is faster.",
        "",
        table(rows),
        "",
    ]
    return lines


def ratio(value: Any) -> str:
    """A ratio, with its quartiles where they were kept."""
    if value is None:
        return ""
    if isinstance(value, list):
        return f"{value[0]:.2f} ({value[1]:.2f} to {value[2]:.2f})"
    return f"{value:.2f}"


def capabilities_page() -> str:
    """What every method can do, from the measured table in capabilities.json."""
    stored = json.loads((REFERENCE / "capabilities.json").read_text(encoding="utf-8"))
    made = ", ".join(f"{name} {version}" for name, version in stored["made"].items())
    lines = [
        "# Capabilities",
        "",
        f"What every method of ours and of peft can do, found out by doing it on tiny models of three families, with "
        f"{made}. To measure it with what you have installed: `deltaproof list methods --capabilities`.",
        "",
        table([[f"`{row[0]}`" if number else row[0], *row[1:]] for number, row in enumerate(capability_rows(stored))]),
        "",
        "A cell that names families stands for those alone. Under `bert`, `gpt2` and `llama` stands whether the method "
        "runs there; the other cells are of the families it runs on.",
    ]
    for question, here in reasons(stored).items():
        lines += ["", f"## {TITLES.get(question, question)}", "", stored["questions"][question], ""]
        lines += [f"- {escaped(reason)}: {', '.join(map(marked, names))}" for reason, names in here.items()]
    tried = [entry["as"] for name, entry in stored["methods"].items() if entry["as"] != name]
    lines += ["", "## Settings", "", "The defaults were tried, but for these, which fit models of width 32:", ""]
    return "\n".join([*lines, *(f"- `{text}`" for text in tried)])


def marked(name: str) -> str:
    """`bitfit (bert)` with the name as code."""
    name, space, where = name.partition(" ")
    return f"`{name}`{space}{where}"


def escaped(text: str) -> str:
    """A library's message, which may hold what Markdown takes for a tag."""
    return text.replace("<", "&lt;")


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
        "capabilities.md": capabilities_page(),
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
