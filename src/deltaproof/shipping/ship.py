"""Ship: write, ask every gate of what was written, and only then give it its name."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deltaproof.backbones.source import find_source
from deltaproof.backbones.tokenizing import load_tokenizer
from deltaproof.data.run_folder import read_dataset
from deltaproof.data.split import Split
from deltaproof.experiments.answer import find_tuned
from deltaproof.metrics import METRICS
from deltaproof.records.store import write_atomically, write_json
from deltaproof.report.page import page
from deltaproof.saving.folder import load_tuned
from deltaproof.shipping import gates as g
from deltaproof.shipping.card import card
from deltaproof.shipping.check import ONNX_ROUNDING, check
from deltaproof.shipping.evidence import evidence, run_of
from deltaproof.shipping.exports import EXPORTS, check_form, store_in
from deltaproof.shipping.folders import EVIDENCE, HEADS
from deltaproof.shipping.gate import Gate, all_hold, failed, not_asked
from deltaproof.shipping.gate_log import enter_gates
from deltaproof.shipping.onnx_graph import OnnxModel
from deltaproof.shipping.onnx_graph import quantize as quantize_graph
from deltaproof.shipping.opening import answers_of, open_model_folder, open_on_base
from deltaproof.shipping.place import check_place, neighbour, put_in_place
from deltaproof.shipping.probes import TEXTS, as_rows
from deltaproof.shipping.scoring import score, score_opened
from deltaproof.shipping.seeds import starts
from deltaproof.shipping.storage import Storage, storage_for
from deltaproof.shipping.units import between, in_units, is_scaled, scaled
from deltaproof.tasks.batches import evaluation_batches
from deltaproof.tasks.text import Encoded, TextTask, collate

Say = Callable[[str], None]
MOST_TEXTS = 50
"""Of the validation rows, beside our own ten, that go through every model alone."""
ALLOWED_POINTS, ALLOWED_SHARE = 0.005, 0.01
"""How far the score on validation may move: half a point of a fraction, a hundredth of any other."""


@dataclass(frozen=True)
class Shipped:
    """What became of it."""

    to: str
    folder: Path | None
    """Where it lies: the folder asked for where every gate holds; else `….failed`, or nowhere."""
    gates: tuple[Gate, ...]
    stored_bytes: int
    """Of the files written, without card and report."""

    @property
    def holds(self) -> bool:
        return all_hold(self.gates)

    def to_json(self) -> dict[str, Any]:
        return {
            "to": self.to,
            "folder": None if self.folder is None else str(self.folder),
            "holds": self.holds,
            "stored_bytes": self.stored_bytes,
            "gates": [gate.to_json() for gate in self.gates],
        }


def ship(
    source: Path | str, to: str, out: Path | str, *, base: str | None = None, licence: str | None = None,
    overwrite: bool = False, keep_failed: bool = False, with_examples: bool = False, dtype: str = "fp32",
    quantize: str | None = None, tolerance: float | None = None, score_tolerance: float | None = None,
    say: Say = lambda text: None,
) -> Shipped:  # fmt: skip
    """Export a tuned model; the folder gets its name only when every gate holds.

    A regression is shipped so that it answers in the unit of its data, where its head has a bias to hold the mean.

    Args:
        source: what `train` or `compare` saved, or a run folder, whose `best` is taken.
        to: `merged`, `adapter` or `onnx`.
        base: where the model that was tuned lies now, if not where it did then.
        licence: for the card, as the hub writes it, such as `apache-2.0`.
        overwrite: replace a folder that is there.
        keep_failed: keep what failed, as `….failed`.
        with_examples: let the report show texts of test examples.
        dtype: of a merged model: the type in which its weights are stored, `fp32`, `bf16` or `fp16`.
        quantize: of an ONNX graph: `int8`, for matrices in 8 bits.
        tolerance: how far a logit may be off, in units of the largest; by default what rounding explains.
        score_tolerance: how far the score on validation may move, in the metric's own unit; by default half a point.
    Raises:
        ConfigError: the form is unknown or does not go with the method, or the folder is there.
    """
    storage = storage_for(to, dtype, quantize, tolerance, score_tolerance)
    check_form(to)
    source, out = find_tuned(Path(source)), Path(out)
    check_place(out, overwrite)
    tuned, task, spec = load_tuned(source, base=base)
    base, run = base or spec["model"]["name"], run_of(source)
    validation = None if run is None else read_dataset(run.store.folder / "data", ["validation"]).validation
    own = [] if validation is None else [tuple(text) for text in validation.texts[:MOST_TEXTS]]
    texts: list[str | tuple[str, ...]] = [*TEXTS, *own]
    tokenizer = tuned.backbone.tokenizer
    rows = as_rows(tokenizer, texts)
    if heads := sorted(path.name for path in (source / HEADS).glob("*") if path.is_dir()):
        say(
            f"note: {len(heads)} more heads of this merge stay behind ({', '.join(heads)}); ship {source / HEADS}/… too"
        )
    say(f"asking {spec['contestant']} itself")
    trained, before = task, answers_of(tuned, rows)
    scored = None if validation is None else score(tuned, task, tokenizer, validation)
    with neighbour(out) as place:
        form = to if storage.name == "fp32" else f"{to} in {storage.name}"
        say(f"writing as {form}")
        task = in_units(tuned, trained)
        written = EXPORTS[to](tuned, task, place)
        smaller: list[Gate] = []
        if storage.dtype != "fp32":
            written = store_in(written, storage.dtype, place)
        if storage.quantize:
            smaller.append(g.matrices_are_small(*quantize_graph(place)))
        n_bytes = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
        in_memory = answers_of(written, rows)
        write_json(place / EVIDENCE, evidence(spec, task, run, to, base, licence, [], storage.name))
        say("asking the gates")
        made_of, output = (place, None) if to == "adapter" else (source, place)
        gates = smaller + check(base, made_of, output, texts, storage.relative)
        before = scaled(before, *between(trained, task))
        gates += _only_here(base, to, place, rows, before, in_memory, spec, task, storage)
        if is_scaled(trained):
            gates.append(_unit_gate(base, to, place, rows, before, trained, task))
        if validation is not None and scored is not None and all_hold(gates):
            gates.append(_score_gate(base, to, place, task, validation, scored, storage))
        facts = evidence(spec, task, run, to, base, licence, gates, storage.name)
        write_json(place / EVIDENCE, facts)
        write_atomically(place / "README.md", card(facts, gates, _licence_of(base)))
        if run is not None:
            enter_gates(run, f"export as {form}", gates)
            write_atomically(place / "report.html", page(run.table, with_examples=with_examples))
        folder = _settle(place, out, all_hold(gates), keep_failed, overwrite)
    return Shipped(to, folder, tuple(gates), n_bytes)


def _settle(place: Path, out: Path, holds: bool, keep_failed: bool, overwrite: bool) -> Path | None:
    if not holds:
        if not keep_failed:
            return None
        out = out.with_name(f"{out.name}.failed")
        overwrite = True
    return put_in_place(place, out, overwrite)


def _only_here(
    base: str, to: str, place: Path, rows: list[Any], before: list[np.ndarray], in_memory: list[np.ndarray],
    spec: dict[str, Any], task: TextTask, storage: Storage,
) -> list[Gate]:  # fmt: skip
    """What only whoever wrote it can ask: is what is read again what stood in memory, and what was tuned?"""
    try:
        found = _answers(base, to, place, rows)
    except Exception as error:
        return [failed("reload equals memory", f"it does not open: {error}")]
    relative = {"merged": 0.0, "adapter": g.ROUNDING["F32"], "onnx": storage.relative or ONNX_ROUNDING}[to]
    why = {
        "merged": "to the bit, since nothing may happen on the way to disk and back",
        "adapter": "peft sums in another order than this package",
        "onnx": "onnxruntime rounds to 8 bits" if storage.quantize else "onnxruntime sums in another order than torch",
    }[to]
    asked = None if to == "onnx" else storage.relative
    rounding = g.ROUNDING[storage.rounds_to] if asked is None else asked
    folding = f"at most {rounding:g} of the largest logit, " + (
        f"what rounding to {storage.rounds_to} explains" if asked is None else "as asked"
    )
    own = [
        g.answers_are_equal("in memory as tuned", before, in_memory, rounding, folding),
        g.answers_are_equal("reload equals memory", in_memory, found, relative, why),
    ]
    if storage.dtype != "fp32":
        as_stored = open_model_folder(place, as_stored=True).answers(rows)
        why = f"reckoned in {storage.dtype} too, as transformers does unless it is told otherwise"
        own.append(g.answers_are_equal("answers in its own type", before, as_stored, rounding, why))
    if to == "adapter":  # for the others the source folder was asked
        own.append(g.seed_reaches_the_start(starts(base, spec, task)))
    return own


def _answers(base: str, to: str, place: Path, rows: list[Any]) -> list[np.ndarray]:
    if to == "onnx":
        return OnnxModel(place).answers(rows)
    opened = open_model_folder(place) if to == "merged" else open_on_base(base, place)
    return opened.answers(rows)


def _unit_gate(
    base: str, to: str, place: Path, rows: list[Any], before: list[np.ndarray], trained: TextTask, task: TextTask
) -> Gate:  # fmt: skip
    if is_scaled(task):
        return not_asked(
            "answers in its unit",
            "the head has no bias to hold the mean: the card says how to turn outputs into values",
        )
    try:
        found = _answers(base, to, place, rows)
    except Exception as error:
        return failed("answers in its unit", f"it does not open: {error}")
    return g.answers_in_its_unit(before, found, trained.target_std)


def _score_gate(
    base: str, to: str, place: Path, task: TextTask, split: Split, before: float, storage: Storage
) -> Gate:  # fmt: skip
    metric = METRICS[task.metrics[0]]
    if to == "onnx":
        tokenizer = load_tokenizer(place, str(place))
        encoded = task.encode(tokenizer, split)
        outputs = _graph_outputs(OnnxModel(place), task, encoded, tokenizer.pad_token_id)
        after = float(metric.score(split.targets, outputs))
    else:
        opened = open_model_folder(place, as_stored=True) if to == "merged" else open_on_base(base, place)
        after = score_opened(opened.model, task, place, split)
    is_share = metric.unit == "fraction"
    allowed = ALLOWED_POINTS if is_share else ALLOWED_SHARE * abs(before)
    why = "half a point may be lost" if is_share else "a hundredth may be lost"
    if storage.score_tolerance is not None:
        allowed, why = storage.score_tolerance, "as asked"
    return g.score_is_kept(metric.name, before, after, allowed, len(split), why)


def _graph_outputs(graph: OnnxModel, task: TextTask, encoded: Encoded, pad_token_id: int) -> np.ndarray:
    outputs = np.zeros((len(encoded), task.n_outputs))
    for rows in evaluation_batches(encoded.lengths, 32):
        outputs[rows] = task.outputs(torch.from_numpy(graph(collate(encoded, rows, pad_token_id))))
    return outputs


def _licence_of(base: str) -> str | None:
    """What the base's card says in its front matter."""
    readme = find_source(base).folder / "README.md"
    if not readme.is_file():
        return None
    front = readme.read_text(encoding="utf-8", errors="replace")[:4000]
    found = re.search(r"^license:\s*[\"']?([\w.\-]+)", front, re.MULTILINE)
    return found[1] if found else None
