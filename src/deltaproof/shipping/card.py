"""The model card: what the folder holds, how to open it, and what is known of it, with where each number is from."""

import json
from typing import Any

from deltaproof.experiments.wording import score, signed
from deltaproof.metrics import METRICS
from deltaproof.shipping.gate import Gate, gates_text

_OPEN = {
    "merged": """from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")""",
    "adapter": """from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

base = AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=N_LABELS)
model = PeftModel.from_pretrained(base, "FOLDER").eval()
tokenizer = AutoTokenizer.from_pretrained("FOLDER")""",
    "onnx": """import onnxruntime
from transformers import AutoTokenizer

session = onnxruntime.InferenceSession("FOLDER/model.onnx")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")""",
}
_WHAT = {
    "merged": "a whole model, the update folded into the weights",
    "adapter": "an adapter in PEFT's format, with the head; it goes on its base",
    "onnx": "an ONNX graph, for any number of rows and tokens",
}


def card(facts: dict[str, Any], gates: list[Gate], base_licence: str | None) -> str:
    """Markdown with the front matter of the hub.

    Args:
        facts: of `evidence`.
        base_licence: what the base's own card says.
    """
    parts = [
        _front(facts), f"# {_code(facts['contestant'])} of {_code(facts['base']['name'])}", _what(facts), _task(facts),
        _scores(facts), _protocol(facts), _licence(facts, base_licence),
        "## Gates\n\nAsked of these files when they were written.\n\n```\n" + gates_text(gates) + "\n```",
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _front(facts: dict[str, Any]) -> str:
    fields = {
        "base_model": facts["base"]["name"],
        "library_name": {"adapter": "peft", "merged": "transformers", "onnx": "onnx"}[facts["to"]],
        "pipeline_tag": "text-classification",
        "license": facts["license"] or "unknown",
        "tags": ["deltaproof", facts["method"]["name"]],
        "metrics": list(facts["task"]["metrics"]),
    }
    # JSON strings and lists are YAML, so that no name can break the front matter
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    return "\n".join(["---", *lines, "---"])


def _what(facts: dict[str, Any]) -> str:
    code = _OPEN[facts["to"]].replace("BASE", json.dumps(facts["base"]["name"]))
    code = code.replace("N_LABELS", str(len(facts["task"]["labels"] or [0])))
    stored = {"fp32": "", "int8": "; its matrices are stored in 8 bits"}.get(
        facts["stored_as"], f"; its weights are stored in {facts['stored_as']}, in which transformers opens it"
    )
    return f"This folder holds {_WHAT[facts['to']]}{stored}.\n\n```python\n{code}\n```"


def _task(facts: dict[str, Any]) -> str:
    task, lines = facts["task"], ["## Task", ""]
    lines.append(f"- {task['kind']}, texts cut at {task['max_length']} tokens")
    if task["labels"]:
        lines.append(f"- outputs, in this order: {', '.join(_code(label) for label in task['labels'])}")
    if task["kind"] == "regression" and (task["target_mean"], task["target_std"]) == (0.0, 1.0):
        lines.append("- the output is the value itself, in the unit of the data")
    elif task["kind"] == "regression":
        lines.append(f"- the output is in standard deviations: value = output · {task['target_std']:.8g} + "
                     f"{task['target_mean']:.8g}")  # fmt: skip
    return "\n".join(lines)


def _scores(facts: dict[str, Any]) -> str:
    if not facts["scores"]:
        return "## Scores\n\nNot known: the folder that this was made from does not lie in its run folder any more."
    rows = ["| metric | this model | the method, mean | 95 % interval |", "|---|---|---|---|"]
    for entry in facts["scores"]:
        unit = METRICS[entry["metric"]].unit
        percent = " (%)" if unit == "fraction" else ""
        rows.append(
            f"| {entry['metric']}{percent} | {score(entry['this_model'], unit)} | {score(entry['mean'], unit)} | "
            f"{score(entry['low'], unit)} to {score(entry['high'], unit)} |"
        )
    n_seeds, n_test = facts["scores"][0]["n_seeds"], facts["data"].get("rows", {}).get("test")
    said = [
        "## Scores", "", *rows, "",
        f"On {n_test} sealed test examples. The method's mean is over {n_seeds} seed{'s' if n_seeds > 1 else ''}; its "
        f"interval covers seeds and test examples.",
    ]  # fmt: skip
    found = facts["comparison"]
    if found and found["verdict"] and found["difference"] is not None:
        unit = METRICS[facts["task"]["metrics"][0]].unit
        said.append(
            f"Against {_code(found['reference'])} under the same protocol: {found['verdict']}, "
            f"{signed(found['difference'], unit)} ({signed(found['low'], unit)} to {signed(found['high'], unit)}), "
            f"equivalent within {score(found['margin'], unit)}."
        )
    said.append("The report, `report.html`, has the comparison whole.")
    return "\n".join(said)


def _protocol(facts: dict[str, Any]) -> str:
    data, training, base = facts["data"], facts["training"], facts["base"]
    rows = data.get("rows", {})
    lines = [
        "## Where it is from",
        "",
        f"- base {_code(base['name'])}, fingerprint of its weights `{base['fingerprint']}`"
        + (f", revision `{base['revision']}`" if base.get("revision") else ""),
        f"- method {_code(json.dumps(facts['method'], ensure_ascii=False))}, seed {facts['seed']}",
    ]
    if data:
        lines.append(
            f"- data {_code(data.get('name', ''))}, fingerprint `{data.get('fingerprint', '')}`, "
            f"{rows.get('train')} rows to train, {rows.get('validation')} to choose, {rows.get('test')} sealed to test"
        )
    if training:
        lines.append(
            f"- learning rate {training.get('learning_rate')}, chosen on validation; {training.get('epochs')} epochs "
            f"of batches of {training.get('batch_size')}, {training.get('schedule')} schedule, "
            f"{training.get('precision')}"
        )
    return "\n".join(
        [*lines, f"- run {_code(facts['record'])}; {facts['made_by']}; all of this as data: `evidence.json`"]
    )


def _licence(facts: dict[str, Any], base_licence: str | None) -> str:
    own = _code(facts["license"]) if facts["license"] else "Not stated by whoever shipped it"
    of_base = f"the base's card says {_code(base_licence)}" if base_licence else "the base's is not known from here"
    return f"## Licence\n\n{own}; {of_base}, and holds for what is made of it too."


def _code(text: str) -> str:
    """A name as code, in a line of its own: Markdown in it is no Markdown."""
    return "`" + " ".join(str(text).replace("`", "'").split()) + "`"
