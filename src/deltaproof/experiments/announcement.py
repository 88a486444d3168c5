"""What an experiment says before it starts: what will be done, how long it will take, how much memory."""

from typing import Any

from deltaproof.experiments import wording
from deltaproof.metrics import METRICS


def announcement(experiment: dict[str, Any]) -> str:
    """The plan and the estimate of `experiment.json`, in a few lines."""
    lines = [f"{heading:10}{text}" for heading, text in _facts(experiment)]
    return "\n".join([*lines, *_estimate(experiment)])


def _facts(experiment: dict[str, Any]) -> list[tuple[str, str]]:
    model, data, task, plan = (experiment[key] for key in ("model", "data", "task", "plan"))
    rows, metric = data["rows"], METRICS[task["metrics"][0]]
    margin = wording.amount(experiment["margin"], metric.unit)
    purposes = f"{rows['train']} rows to train, {rows['validation']} to choose on, {rows['test']} sealed to test on"
    within = f"within {margin} of {metric.name.replace('_', ' ')}"
    facts = [
        ("model", f"{model['name']} ({wording.count(model['n_parameters'])} parameters)"),
        ("data", f"{data['name']}: {purposes}"),
        ("question", f"is any contestant as good as {experiment['reference']}, {within}?"),
        ("protocol", _protocol(len(experiment["contestants"]), plan)),
        ("machine", _machine(experiment)),
    ]
    if data["truncated_fraction"]:
        share = wording.share(data["truncated_fraction"])
        facts.append(("note", f"{share} of the rows are longer than {task['max_length']} tokens and were cut"))
    return [*facts, *(("note", note) for note in (*data["notes"], *model["notes"]))]


def _machine(experiment: dict[str, Any]) -> str:
    n, threads = experiment["workers"], experiment["threads"]
    side = f"{n} trainings side by side" if n > 1 else "one training at a time"
    each = f"{threads} thread{'s' if threads > 1 else ''} each"
    return f"{experiment['device']}, {experiment['precision']}, {side}, {each}"


def _protocol(n_contestants: int, plan: dict[str, Any]) -> str:
    n_trials, n_seeds = plan["trials"], plan["seeds"]
    seeds = f"{n_seeds} seed{'s' if n_seeds > 1 else ''} each"
    if plan.get("looks", 1) > 1:
        seeds += f" at most, with {plan['looks']} looks that may settle it earlier"
    if n_trials == 1:
        return f"one learning rate each, so nothing to choose; {seeds}; {n_contestants * n_seeds} trainings"
    n_trainings = n_contestants * (n_trials + n_seeds)
    chosen = "chosen on validation"
    if plan.get("tuning") == "halving":
        chosen = f"chosen on validation, those that cannot win stopped early (risk {plan['tuning_risk']:.0%})"
    return f"{n_trials} learning rates each, {chosen}; then {seeds}; {n_trainings} trainings"


def _estimate(experiment: dict[str, Any]) -> list[str]:
    width = max(10, *(len(entry["name"]) for entry in experiment["contestants"]))
    lines = [f"{'estimate':10}{'contestant':{width}} {'time':>12} {'memory':>8} {'trained':>8}"]
    for entry in experiment["contestants"]:
        estimate = entry["estimate"]
        time = wording.duration(estimate["seconds"])
        memory = wording.size(estimate["peak_device_memory_bytes"] or estimate["peak_memory_bytes"])
        trained = wording.count(estimate["n_trainable"]) if estimate["fits"] else "–"
        ending = "" if estimate["fits"] else "  does not fit into memory"
        lines.append(f"{'':10}{entry['name']:{width}} {time:>12} {memory:>8} {trained:>8}{ending}")
    return [*lines, f"{'':10}in all about {wording.duration(experiment['estimated_seconds'])}"]
