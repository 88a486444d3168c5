"""A merge as a folder: the body once, a head for every task, gates before it gets its name.

    OUT/                 a `transformers` folder with one head; `deltaproof.json`, so that `predict`, `compress`, `ship`
                         and `gate` take it; `evidence.json` with recipe, scores and gates
    OUT/heads/NAME/      one for each other task: the head alone, as `train --method head` on OUT saves it. Its
                         `deltaproof.json` says under `model.beside` where OUT lies from there, so that the folder can
                         be moved as a whole. A head with parts inside of the body (a pooler that the base lacked)
                         cannot lie beside it: then it is a whole model of its own.

A merge that is cut to a rank is written as PEFT adapters of the base instead, OUT/ and OUT/heads/NAME/ alike, each with
its head.
"""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch

from deltaproof import __version__
from deltaproof.backbones.head import modules_on_top
from deltaproof.backbones.quiet import quiet
from deltaproof.backbones.source import find_source
from deltaproof.errors import ConfigError
from deltaproof.experiments.environment import versions
from deltaproof.merging.body import Head
from deltaproof.records.spec import Spec
from deltaproof.records.store import read_json, write_atomically, write_json
from deltaproof.saving.folder import FACTS, TENSORS, load_tuned
from deltaproof.shipping import gates as g
from deltaproof.shipping.check import check
from deltaproof.shipping.extract import extract
from deltaproof.shipping.folders import EVIDENCE, HEADS
from deltaproof.shipping.gate import Gate, all_hold
from deltaproof.shipping.opening import answers_of, open_on_base
from deltaproof.shipping.place import check_place, neighbour, put_in_place
from deltaproof.shipping.probes import TEXTS, as_rows
from deltaproof.shipping.whole import TO_THE_BIT, save_whole, write_whole
from deltaproof.studies.merge_record import STAGE, WHOLE, append, in_words
from deltaproof.studies.merging import MergeRun
from deltaproof.studies.robustness_sets import file_name

Say = Callable[[str], None]


@dataclass(frozen=True)
class Written:
    """What became of a folder."""

    folder: Path | None
    """None where a gate does not hold."""
    heads: dict[str, str]
    """Where each head lies, below the folder."""
    gates: tuple[Gate, ...]
    stored_bytes: int

    @property
    def holds(self) -> bool:
        return all_hold(self.gates)

    def to_json(self) -> dict[str, Any]:
        return {
            "folder": None if self.folder is None else str(self.folder), "heads": self.heads, "holds": self.holds,
            "stored_bytes": self.stored_bytes, "gates": [gate.to_json() for gate in self.gates],
        }  # fmt: skip


def check_request(out: Path, overwrite: bool, head: str | None, known: list[str]) -> None:
    """What can be said before anything is merged.

    Raises:
        ConfigError: something is there, or there is no such expert.
    """
    check_place(out, overwrite)
    if head is not None and head not in known:
        raise ConfigError(f"`--head` must name an expert, got `{head}`; known: {', '.join(known)}")


def write_merged(
    run: MergeRun, out: Path, head: str | None = None, overwrite: bool = False, say: Say = lambda text: None
) -> Written:
    """Write the merge that the body holds.

    Args:
        head: of the expert whose head the folder itself is to have; the first one's when left out.
    """
    first = run.body.heads[0] if head is None else run.body.head(head)
    others = [one for one in run.body.heads if one is not first]
    check_place(out, overwrite)
    with neighbour(out) as place:
        say(f"writing {out}")
        write = _write_model if run.recipe.rank is None else _write_adapter
        gates = write(run, first, place, say)
        heads = {first.name: "."}
        for other in others:
            heads[other.name] = f"{HEADS}/{file_name(other.name)}"
            below = place / heads[other.name]
            below.parent.mkdir(exist_ok=True)
            if run.recipe.rank is None and _is_on_top(other):
                asked = _write_head(run, other, place, out, below)
            else:
                asked = write(run, other, below, say)
            gates += [replace(gate, name=f"{other.name}: {gate.name}") for gate in asked]
        n_bytes = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
        _write_evidence(run, first, place, heads, gates)
        folder = put_in_place(place, out, overwrite) if all_hold(gates) else None
    for ground, entry in zip(run.grounds, run.entries, strict=True):
        if folder is not None and entry["folder"] != out.name:
            entry["folder"] = out.name
            append(ground, entry)
    return Written(folder, heads, tuple(gates), n_bytes)


def _spec(run: MergeRun, head: Head, model: dict[str, Any], method: dict[str, Any]) -> Spec:
    source = run.sources[head.members[0]] if head.members else None
    entry = next((one for one, ground in zip(run.entries, run.grounds, strict=True)
                  if set(ground.members) & set(head.members) or not head.members), None)  # fmt: skip
    training = dict(source.spec["training"]) if source is not None and source.spec is not None else {}
    data = dict(source.spec["data"]) if source is not None and source.spec is not None else {}
    if entry is not None and (record := run.grounds[run.entries.index(entry)].store.find(entry["key"])) is not None:
        training, data = dict(record.spec.training), dict(record.spec.data)
    kept = {name: training[name] for name in ("batch_size", "precision", "threads", "device") if name in training}
    return Spec(
        contestant=in_words(run.recipe, [one.name for one in run.sources]),
        method=method,
        model=model,
        task=head.task.to_json(),
        data=data or {"name": head.name, "fingerprint": None},
        training={
            "batch_size": 32,
            "precision": "fp32",
            **kept,
            "merging": run.recipe.to_json(),
            "versions": versions(),
        },
        seed=run.recipe.seed,
        stage=STAGE,
        parents=tuple(key for one in run.sources if (key := one.key) is not None),
    )


def _base_facts(run: MergeRun) -> dict[str, Any]:
    first = run.sources[0]
    return {"name": first.base, "fingerprint": first.fingerprint, "revision": first.revision or ""}


def _write_model(run: MergeRun, head: Head, folder: Path, say: Say) -> list[Gate]:
    say("asking the gates")
    spec = _spec(run, head, _base_facts(run), WHOLE)
    return write_whole(head.backbone, head.task, spec, run.sources[0].base, folder)


def _is_on_top(head: Head) -> bool:
    """Whether nothing of the head lies inside of the body."""
    return set(head.backbone.head) <= set(modules_on_top(head.backbone.model))


def _write_head(run: MergeRun, head: Head, whole: Path, out: Path, folder: Path) -> list[Gate]:
    """A further head over the body of `whole`, which will be called `out`."""
    fingerprint = find_source(str(whole)).fingerprint()
    model = {"name": str(out), "fingerprint": fingerprint, "revision": "", "beside": "../.."}
    spec = _spec(run, head, model, {"name": "head"})
    own = dict(head.backbone.model.named_parameters())
    state = {name: own[name].detach().cpu().contiguous().clone() for name in head.names}
    write_atomically(folder / TENSORS, safetensors.torch.save(state))
    with quiet():
        head.backbone.tokenizer.save_pretrained(folder)
    write_json(folder / FACTS, {"format": 1, "spec": asdict(spec), "task": head.task.to_json()})
    rows = as_rows(head.backbone.tokenizer, TEXTS)
    tuned, _, _ = load_tuned(folder)
    before, found = answers_of(head.backbone.model, rows), answers_of(tuned, rows)
    return [g.answers_are_equal("reload equals memory", before, found, 0.0, TO_THE_BIT)]


def _write_adapter(run: MergeRun, head: Head, folder: Path, say: Say) -> list[Gate]:
    """The change as a low-rank adapter of the base, as PEFT's `*_svd` merges give it, with the head."""
    assert run.recipe.rank is not None
    base = run.sources[0].base
    with tempfile.TemporaryDirectory(prefix="deltaproof-") as temporary:
        whole = Path(temporary) / "whole"
        save_whole(head.backbone, head.task.labels, whole)
        say(f"cutting to rank {run.recipe.rank}")
        extract(base, whole, run.recipe.rank, folder, overwrite=True)
    rows = as_rows(head.backbone.tokenizer, TEXTS)
    before, found = answers_of(head.backbone.model, rows), open_on_base(base, folder).answers(rows)
    why = f"at most {g.ROUNDING['F32']:g} of the largest logit, what rounding to F32 explains"
    equal = g.answers_are_equal("reload equals memory", before, found, g.ROUNDING["F32"], why)
    return [*check(base, folder), equal]


def _write_evidence(run: MergeRun, head: Head, place: Path, heads: dict[str, str], gates: list[Gate]) -> None:
    before = read_json(place / EVIDENCE) if (place / EVIDENCE).is_file() else {}
    facts = {
        **before,
        "format": 1,
        "made_by": f"deltaproof {__version__}, merge",
        "base": _base_facts(run),
        "task": head.task.to_json(),
        "merge": run.to_json(),
        "heads": heads,
        "gates": [gate.to_json() for gate in gates],
    }
    write_json(place / EVIDENCE, facts)
