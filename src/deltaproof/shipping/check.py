"""All gates of a base, what was tuned on it, and what is to be shipped: folders made by whomever."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deltaproof.backbones.head import output_parameters
from deltaproof.backbones.source import find_source
from deltaproof.backbones.tokenizing import load_tokenizer
from deltaproof.errors import BackboneError, DeltaproofError
from deltaproof.records.store import read_json
from deltaproof.saving.folder import FACTS, read_facts
from deltaproof.shipping import gates as g
from deltaproof.shipping.changed import changed_names, n_changed, shared_names
from deltaproof.shipping.folders import EVIDENCE, Kind, kind_of, model_name, tensors_of
from deltaproof.shipping.gate import Gate, failed
from deltaproof.shipping.onnx_graph import OnnxModel
from deltaproof.shipping.opening import Opened, labels_in, open_model_folder, open_on_base
from deltaproof.shipping.probes import BATCH, TEXTS, as_rows, token_ids
from deltaproof.shipping.seeds import starts
from deltaproof.shipping.units import between, scaled
from deltaproof.tasks.text import TextTask
from deltaproof.theory.adapters import CONFIG
from deltaproof.theory.checkpoints import Checkpoint, open_model

Texts = Sequence[str | tuple[str, ...]]
ONNX_ROUNDING = 1e-3
"""Of the largest logit: other kernels sum in another order, which moved logits by up to 1e-6 on tiny models of three
families and 3e-6 on a BERT of six layers; approximations of GELU that runtimes put in for speed stay below it too."""


def check(
    base: str, tuned: Path, output: Path | None = None, texts: Texts = TEXTS, relative: float | None = None
) -> list[Gate]:
    """Every gate that these folders allow, in an order in which each rests on those before it.

    What cannot be opened ends the list: a failed gate says why, those behind it were not asked.

    Args:
        base: what was tuned: a folder, an alias or a hub id.
        tuned: an adapter, what `train` or `compare` saved, or a whole model.
        output: what is to be shipped: a merged model. Left out, `tuned` itself is what is to be shipped.
        texts: to ask the models with.
        relative: how far a logit may be off, in units of the largest; by default what rounding explains.
    """
    before = open_model(base)
    return _Check(base, before, tuned, output or tuned, output is not None, texts, relative).run()


class _Stopped(Exception):  # noqa: N818 - it ends the list, and is no error
    pass


class _Check:
    def __init__(
        self, base: str, before: Checkpoint, tuned: Path, output: Path, is_made_of_it: bool, texts: Texts,
        relative: float | None,
    ) -> None:  # fmt: skip
        self.base, self.before, self.tuned, self.output = base, before, tuned, output
        self.has_output = is_made_of_it
        self.texts, self.relative = texts, relative
        self.gates: list[Gate] = []

    def run(self) -> list[Gate]:
        with contextlib.suppress(_Stopped):
            self._ask()
        return self.gates

    def _add(self, gate: Gate, stops: bool = False) -> None:
        self.gates.append(gate)
        if stops and gate.holds is False:
            raise _Stopped

    def _open(self, name: str, do: Any) -> Any:
        try:
            return do()
        except DeltaproofError as error:
            self._add(failed(name, str(error)), stops=True)

    def _ask(self) -> None:
        kind = self._open("tuned: files are whole", lambda: kind_of(self.tuned))
        tuned = self._open("tuned: files are whole", lambda: tensors_of(self.tuned, kind))
        self._add(g.files_are_whole("tuned: files are whole", tuned), stops=True)
        output = tuned
        if self.has_output:
            of_output = self._open("output: files are whole", lambda: kind_of(self.output))
            if of_output == "onnx":
                self._ask_of_graph(kind)
                return
            output = self._open("output: files are whole", lambda: tensors_of(self.output, "model"))
            self._add(g.files_are_whole("output: files are whole", output), stops=True)
        self._add(self._belongs())
        attached = self._attached(kind)
        if not self.has_output:
            self._ask_alone(attached, tuned)
            return
        self._ask_of_output(attached, tuned, output)

    def _attached(self, kind: Kind) -> Opened:
        attached: Opened = self._open(
            "tuned: opens", lambda: open_model_folder(self.tuned) if kind == "model" else self._on_base()
        )
        self._add(g.nothing_at_random("tuned: head is there", attached))
        if (self.tuned / FACTS).is_file():
            spec, task = self._facts()
            self._add(g.seed_reaches_the_start(starts(self.base, spec, task)))
        return attached

    def _ask_of_graph(self, kind: Kind) -> None:
        """Of an ONNX graph, whose weights have no names to compare: what it answers, alone and in a batch."""
        self._add(self._belongs())
        attached = self._attached(kind)
        expected = scaled(attached.answers(self._rows()), *self._unit())
        graph: OnnxModel = self._open("output: opens", lambda: OnnxModel(self.output))
        self._add(self._tokenizer(self.output, needs_own=True))
        names = labels_in(self.output)
        shown = replace(attached, labels=names, kind="onnx")
        self._add(g.label_names_are_there(shown, self._known_labels() or attached.labels))
        relative = ONNX_ROUNDING if self.relative is None else self.relative
        why = f"at most {relative:g} of the largest logit" + (
            ", what another order of sums explains" if self.relative is None else ", as asked"
        )
        found = graph.answers(self._rows())
        self._add(g.answers_are_equal("output answers like the tuned", expected, found, relative, why))
        tokenizer = load_tokenizer(self.output, str(self.output))
        together = graph(dict(tokenizer(list(BATCH), padding=True, return_tensors="pt")))
        alone = graph.answers(as_rows(tokenizer, BATCH))
        self._add(g.answers_are_equal("answers in a batch as alone", alone, list(together), relative, "padded rows"))

    def _belongs(self) -> Gate:
        if (self.tuned / FACTS).is_file():
            recorded = self._facts()[0]["model"]["fingerprint"]
            return g.belongs_to_base(recorded, self.base, "the base that training recorded")
        if (self.tuned / EVIDENCE).is_file():
            recorded = read_json(self.tuned / EVIDENCE).get("base", {}).get("fingerprint")
            return g.belongs_to_base(recorded, self.base, "the base that training recorded")
        if (self.tuned / CONFIG).is_file():
            config = read_json(self.tuned / CONFIG)
            named = config.get("base_model_name_or_path")
            return g.belongs_to_base(g.fingerprint_of_named_base(config), self.base, f"`{named}`, which it names,")
        return g.belongs_to_base(None, self.base, "")

    def _on_base(self) -> Opened:
        return open_on_base(self.base, self.tuned, self.output if self.has_output else None)

    def _ask_alone(self, attached: Opened, tuned: Checkpoint) -> None:
        self._add(self._tokenizer(self.tuned, needs_own=attached.kind == "model"))
        self._add(g.label_names_are_there(attached, self._known_labels()))
        if attached.kind == "model":
            self._add(g.differs_from_base(self.before, tuned, shared_names(self.before, tuned), ()))
        else:
            self._add(g.adapter_changes_something(*n_changed(self.before, self.tuned, attached, tuned)))

    def _ask_of_output(self, attached: Opened, tuned: Checkpoint, output: Checkpoint) -> None:
        expected = scaled(attached.answers(self._rows()), *self._unit())
        changed = changed_names(self.before, self.tuned, attached, tuned, output)
        known = self._known_labels() or attached.labels
        attached.model.to("meta")  # make room: one model at a time
        shipped: Opened = self._open("output: opens", lambda: open_model_folder(self.output))
        self._add(g.nothing_at_random("output: head is there", shipped))
        held = {model_name(stored): stored for stored in tuned}
        whole = {own: held[own] for own in shipped.parameter_names if own in held}
        self._add(g.head_is_equal(tuned, output, whole, self._unit_of_parameters(shipped)))
        self._add(self._tokenizer(self.output, needs_own=True))
        self._add(g.label_names_are_there(shipped, known))
        self._add(g.differs_from_base(self.before, output, shared_names(self.before, output), changed))
        stored = coarsest_type(output)
        relative = g.ROUNDING[stored] if self.relative is None else self.relative
        why = f"at most {relative:g} of the largest logit" + (
            f", what rounding to {stored} explains" if self.relative is None else ", as asked"
        )
        found = shipped.answers(self._rows())
        self._add(g.answers_are_equal("output answers like the tuned", expected, found, relative, why))

    def _unit(self) -> tuple[float, float]:
        """From what the tuned regression puts out to what the output does, whose evidence says whether they differ."""
        if not ((self.tuned / FACTS).is_file() and (self.output / EVIDENCE).is_file()):
            return 1.0, 0.0
        told = read_json(self.output / EVIDENCE).get("task", {})
        return between(self._facts()[1], TextTask.from_json(told)) if "target_std" in told else (1.0, 0.0)

    def _unit_of_parameters(self, shipped: Opened) -> dict[str, tuple[float, float]]:
        factor, shift = self._unit()
        if (factor, shift) == (1.0, 0.0):
            return {}
        return {name: (factor, shift if name.endswith("bias") else 0.0) for name in output_parameters(shipped.model, 1)}

    def _rows(self) -> list[Any]:
        folder = find_source(self.base).folder
        return as_rows(load_tokenizer(folder, self.base), self.texts)

    def _tokenizer(self, folder: Path, needs_own: bool) -> Gate:
        own = token_ids(load_tokenizer(find_source(self.base).folder, self.base), self.texts)
        try:
            return g.tokenizer_is_there(own, token_ids(load_tokenizer(folder, str(folder)), self.texts))
        except BackboneError as error:
            return g.tokenizer_is_there(own, str(error) if needs_own else own)

    def _known_labels(self) -> tuple[str, ...] | None:
        return self._facts()[1].labels if (self.tuned / FACTS).is_file() else None

    def _facts(self) -> tuple[dict[str, Any], TextTask]:
        task, spec = read_facts(self.tuned / FACTS)
        return spec, task


def coarsest_type(tensors: Checkpoint) -> str:
    """The type of the fewest digits among the floating tensors."""
    order = ("BF16", "F16", "F32", "F64")
    found = {tensors.stored_type(name) for name in tensors if tensors.is_float(name)}
    return next((name for name in order if name in found), "F32")
