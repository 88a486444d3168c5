"""The gates: each asks one question about what is to be shipped, and each has failed on a folder made to fail it.

Users' most bitter reports are of merged models that had lost their tuning or their head, and of "merged" folders that
were the base, byte by byte. Nothing of it raises an error: only a question that has a number finds it.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deltaproof.backbones.source import find_source
from deltaproof.errors import BackboneError
from deltaproof.shipping.gate import Gate, at_least, at_most, failed, not_asked
from deltaproof.shipping.opening import Opened
from deltaproof.shipping.units import folded
from deltaproof.theory.checkpoints import Checkpoint

ROUNDING = {"F64": 1e-4, "F32": 1e-4, "F16": 2e-2, "BF16": 1e-1}
"""By the type in which weights are stored, how far logits may move when an update is folded in, in units of the largest
logit. Measured on a BERT of six layers and LoRA of two sizes on every linear map: up to 3e-6 in float32, 1.3e-3 in
float16, 1e-2 in bfloat16; the thresholds are ten times that and more. Lost tuning moves logits by what it taught."""


def files_are_whole(name: str, tensors: Mapping[str, Tensor]) -> Gate:
    """Can every tensor be read, and is every number a number?"""
    broken: list[str] = []
    try:
        for key in tensors:
            value = tensors[key]
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                broken.append(key)
    except Exception as error:
        return failed(name, f"a tensor cannot be read: {error}")
    reason = f"`{broken[0]}` holds nan or infinity" if broken else f"all {len(tensors)} tensors are read"
    return at_most(name, len(broken), 0, "tensors with nan or infinity", reason)


def belongs_to_base(recorded: str | None, base: str, who: str) -> Gate:
    """Was it tuned on this base?

    Args:
        recorded: fingerprint of the base, or None where nothing that is at hand tells it.
        who: what records it.
    """
    name = "made on this base"
    if recorded is None:
        return not_asked(name, "the adapter does not record its base's weights, and the base that it names is not here")
    own = find_source(base).fingerprint()
    reason = f"{who} is {recorded}" + ("" if own == recorded else f", `{base}` is {own}; bring that base back")
    return at_most(name, float(own != recorded), 0, "fingerprints that differ", reason)


def nothing_at_random(name: str, opened: Opened) -> Gate:
    """Is every parameter, the head's above all, in a file? What is not was drawn at random on opening, silently."""
    some = ", ".join(f"`{key}`" for key in opened.missing[:3]) + (" …" if len(opened.missing) > 3 else "")
    reason = f"no file holds {some}: save the head with the rest" if opened.missing else ""
    return at_most(name, len(opened.missing), 0, "parameters drawn at random", reason)


@torch.no_grad()
def head_is_equal(
    tuned: Checkpoint, output: Checkpoint, whole: Mapping[str, str],
    unit: Mapping[str, tuple[float, float]] | None = None,
) -> Gate:  # fmt: skip
    """Are the parameters that tuning holds whole, such as the head, in the output to the last bit of its type?

    Args:
        whole: a parameter's name in the output to its name among the tuned tensors.
        unit: factor and shift of parameters into which the unit of a regression is folded.
    """
    name = "head is equal"
    if not whole:
        return not_asked(name, "what was tuned holds no parameter whole")
    largest, worst = 0.0, ""
    for own, stored in whole.items():
        if own not in output:
            return failed(name, f"`{own}` was tuned and is not in the output")
        value = output[own]
        wanted = folded(tuned[stored], *(unit or {}).get(own, (1.0, 0.0))).to(value.dtype)
        if wanted.shape != value.shape:
            return failed(name, f"`{own}` is {list(value.shape)} in the output and {list(wanted.shape)} in the tuned")
        difference = float((wanted.double() - value.double()).abs().max()) if value.numel() else 0.0
        if difference > largest or np.isnan(difference):
            largest, worst = difference, own
    return at_most(name, largest, 0, "largest difference of a weight", f"at `{worst}`" if worst else "")


def tokenizer_is_there(base_ids: Sequence[Sequence[int]], own_ids: Sequence[Sequence[int]] | str) -> Gate:
    """Does the folder bring its tokenizer, and does it cut texts into the same tokens as the base's?

    Args:
        own_ids: tokens of the same texts, or why there are none.
    """
    name = "tokenizer is there"
    if isinstance(own_ids, str):
        return failed(name, own_ids)
    n_other = sum(list(one) != list(other) for one, other in zip(base_ids, own_ids, strict=True))
    return at_most(name, n_other, 0, f"of {len(base_ids)} texts in other tokens than the base's")


def label_names_are_there(output: Opened, known: tuple[str, ...] | None) -> Gate:
    """Do the outputs have names, those that training knew?"""
    name = "label names are there"
    if output.n_outputs is None or output.n_outputs < 2:
        return not_asked(name, "the model's outputs are no labels")
    if output.labels is None:
        if output.kind == "adapter" and known is None:
            return not_asked(name, "a PEFT adapter has no place for them; put them into the base's config.json")
        return at_most(name, output.n_outputs, 0, "outputs without a name", "config.json says LABEL_0, LABEL_1 …")
    if known is None:
        return at_most(name, 0, 0, "outputs without a name", ", ".join(output.labels[:4]))
    n_other = sum(one != other for one, other in zip(known, output.labels, strict=False))
    n_other += abs(len(known) - len(output.labels))
    reason = f"{', '.join(output.labels[:4])}" + (f" for {', '.join(known[:4])}" if n_other else "")
    return at_most(name, n_other, 0, "names that differ", reason)


@torch.no_grad()
def differs_from_base(base: Checkpoint, output: Checkpoint, names: Mapping[str, str], changed: Collection[str]) -> Gate:
    """Did the tuning reach the weights, or are they the base's?

    Args:
        names: of every tensor that both have: its name in the output to its name in the base.
        changed: names, as in the output, of tensors that tuning changes; where that is not known, none: then anything
            that differs will do.
    """
    name = "tuning is in the weights"
    asked = [own for own in changed if own in names] if changed else list(names)
    if not asked:
        return not_asked(name, "tuning changed nothing that the base has: its head alone is new, and asked for above")
    same = [own for own in asked if _is_same(output[own], base[names[own]])]
    wanted = len(asked) if changed else 1
    n_new = 0 if changed else len([own for own in output if own not in names])
    reason = ""
    if len(asked) - len(same) < wanted:
        reason = f"`{same[0]}` is the base's, bit by bit" if changed else "every tensor is the base's, bit by bit"
        if not changed and n_new:
            reason += f", but for {n_new} that the base has not"
    return at_least(name, len(asked) - len(same), wanted, "tensors differ from the base's", reason)


def _is_same(value: Tensor, before: Tensor) -> bool:
    return value.shape == before.shape and torch.equal(value, before.to(value.dtype))


def adapter_changes_something(n_changed: int, n_asked: int) -> Gate:
    """Does the adapter change any weight at all? An untrained LoRA has B = 0 and is the base."""
    reason = "" if n_changed else "every change is zero: the adapter is the base"
    return at_least(
        "tuning is in the weights", n_changed, 1, f"of {n_asked} changed weights are not the base's", reason
    )


def answers_are_equal(
    name: str, expected: Sequence[np.ndarray], found: Sequence[np.ndarray], relative: float, why: str
) -> Gate:
    """Does it answer like what it was made from?

    Args:
        expected: of the model before, one array of logits per text.
        found: of what is asked.
        relative: how far a logit may be off, in units of the largest logit.
        why: of the threshold.
    """
    if any(one.shape != other.shape for one, other in zip(expected, found, strict=True)):
        return failed(name, f"answers have the shapes {expected[0].shape} and {found[0].shape}; they are of two tasks")
    distance = max(float(np.abs(one - other).max()) for one, other in zip(expected, found, strict=True))
    largest = max(float(np.abs(one).max()) for one in expected)
    n_other = sum(_says(one) != _says(other) for one, other in zip(expected, found, strict=True))
    reason = f"over {len(expected)} texts, {n_other} of them answered otherwise; {why}"
    return at_most(name, distance, relative * max(largest, 1e-6), "largest difference of a logit", reason)


def _says(logits: np.ndarray) -> int:
    """Which output a text gets, of a model that answers at every token the last one; the sign of a lone number."""
    last = logits if logits.ndim == 1 else logits[-1]
    return int(last.argmax()) if last.size > 1 else int(last.item() > 0)


def score_is_kept(metric: str, expected: float, found: float, allowed: float, n_rows: int, why: str) -> Gate:
    """Does it score on the task like what it was made from?"""
    reason = f"{metric} {found:.4g} for {expected:.4g} on {n_rows} validation rows; {why}"
    difference = round(abs(found - expected), 12)  # 0.865 - 0.86 is a little more than 0.005 in binary
    return at_most("score is kept", difference, allowed, f"difference in {metric}", reason)


def answers_in_its_unit(expected: Sequence[np.ndarray], found: Sequence[np.ndarray], deviation: float) -> Gate:
    """Does a regression put out the value itself, in the unit of the data?

    Args:
        expected: values in the unit of the data, as the tuned model tells them.
        found: what the shipped model puts out, nothing done to it.
        deviation: of the training targets.
    """
    distance = max(float(np.abs(one - other).max()) for one, other in zip(expected, found, strict=True))
    reason = f"over {len(expected)} texts; a thousandth of the targets' deviation, {deviation:.4g}, may be off"
    return at_most("answers in its unit", distance, 1e-3 * deviation, "largest difference of a value", reason)


def matrices_are_small(n_small: int, n_matrices: int) -> Gate:
    """Is what was quantised stored in 8 bits? A quantiser that finds nothing says nothing."""
    reason = f"of {n_matrices} matrices of the graph; embeddings and the like stay"
    return at_least("weights are in 8 bits", n_small, 1, "matrices are", reason)


def seed_reaches_the_start(starts: Sequence[Mapping[str, str]]) -> Gate:
    """Did the seed reach the initialisation: the same seed the same start, another seed another?

    Args:
        starts: a digest of each trained tensor before training, by name: of a seed, of that seed again, of another.
    """
    name = "seed reaches the start"
    first, again, other = starts
    unstable = [key for key in first if first[key] != again[key]]
    if unstable:
        reason = f"`{unstable[0]}` starts otherwise with the same seed: something draws without it"
        return at_most(name, len(unstable), 0, "tensors start otherwise with the same seed", reason)
    n_other = sum(first[key] != other[key] for key in first)
    reason = "" if n_other else "two seeds start alike: several runs would be one run, counted several times"
    return at_least(name, n_other, 1, f"of {len(first)} trained tensors start otherwise with another seed", reason)


def fingerprint_of_named_base(adapter: Mapping[str, object]) -> str | None:
    """Of the base that an adapter's configuration names, where that lies on this machine."""
    named = adapter.get("base_model_name_or_path")
    if not isinstance(named, str) or not Path(named).expanduser().is_dir():
        return None
    try:
        return find_source(named).fingerprint()
    except BackboneError:
        return None
