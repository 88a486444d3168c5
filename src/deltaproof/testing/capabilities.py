"""What a method can do, found out by doing it: on tiny models of three families."""

import json
import math
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from deltaproof.backbones.quiet import quiet
from deltaproof.errors import DeltaproofError
from deltaproof.methods.base import Method
from deltaproof.methods.combine import Together
from deltaproof.methods.edits import ModelEdit, Unfreeze
from deltaproof.methods.lora import LoRA
from deltaproof.methods.tuned import Tuned, attach
from deltaproof.saving.peft_adapter import save_peft_adapter
from deltaproof.testing.bench import Bench
from deltaproof.testing.endurance import a_base_in_bf16_runs, recomputed_it_has_the_same_gradients

FAMILIES = ("bert", "gpt2", "llama")
Found = bool | str | None
"""True; or how it fails, in words; or None where the method does not run at all."""


def capabilities(method: Method, families: tuple[str, ...] = FAMILIES) -> dict[str, dict[str, Found]]:
    """By family, then by name in `CAPABILITIES`: True where the method can do it, else what went wrong.

    >>> from deltaproof.methods import method_from
    >>> found = capabilities(method_from("ia3"), ("bert",))["bert"]
    >>> found["merges"], found["exports_to_lora"]
    (True, "it is stored as peft's IA3")
    """
    found: dict[str, dict[str, Found]] = {}
    for family in families:
        here = found[family] = {"runs": _tried(runs, method, Bench(family))}
        for name, check in CAPABILITIES.items():
            if name != "runs":
                here[name] = _tried(check, method, Bench(family)) if here["runs"] is True else None
    return found


def _tried(check: Callable[[Method, Bench], None], method: Method, bench: Bench) -> Found:
    """Whatever goes wrong is what the table tells, so everything is caught here, of code that is not ours too."""
    try:
        with torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(0)
            check(method, bench)
    except AssertionError as error:
        return re.sub(": Tensor-likes are not close!.*", " differs", _first_line(error))
    except DeltaproofError as error:
        said = re.search(r"it says: (.*?); set the field", str(error), re.DOTALL)
        return f"peft refuses: {said[1]}" if said else str(error)
    except Exception as error:
        return f"{type(error).__name__}: {_first_line(error)}"
    return True


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def runs(method: Method, bench: Bench) -> None:
    """Attached and trained for 20 steps, it has lowered the loss."""
    tuned = attach(bench.backbone(), method)
    before = _loss(tuned, bench)
    bench.train(tuned, n_steps=20, learning_rate=method.grid_centre)
    after = _loss(tuned, bench)
    assert after < before, f"20 steps took the loss from {before:.4f} to {after:.4f}"


@torch.no_grad()
def _loss(tuned: Tuned, bench: Bench) -> float:
    torch.manual_seed(0)  # a method may draw in evaluation too
    return float(bench.loss(tuned.eval()))


def starts_as_base(method: Method, bench: Bench) -> None:
    """Before the first step it answers like the base."""
    backbone = bench.backbone()
    with torch.no_grad():
        before = backbone.model.eval()(**bench.batch(backbone)).logits
    difference = float((bench.answers(attach(backbone, method)) - before).abs().max())
    assert difference <= 1e-5, f"an answer starts more than {10 ** math.floor(math.log10(difference)):g} off the base's"


def merges(method: Method, bench: Bench) -> None:
    """Folded into the base's weights, it answers as before, and nothing of it is left in the model."""
    tuned = bench.tuned(method)
    assert tuned.mergeable, "it is more than a change of weights and biases that the model has"
    attached = bench.answers(tuned)
    kinds = {type(module) for module in bench.backbone().model.modules()}
    plain = tuned.merge().eval()
    with torch.no_grad():
        merged = plain(**bench.batch(tuned.backbone)).logits
    difference = float((merged - attached).abs().max())
    assert difference <= 1e-4, f"merged, an answer is {difference:.2g} away"
    left = sorted({type(module).__name__ for module in plain.modules()} - {kind.__name__ for kind in kinds})
    assert not left, f"merged, the model still holds {left[0]}"


def exports_to_lora(method: Method, bench: Bench) -> None:
    """peft loads it as a LoRA, ours from a saved folder, its own through `convert_to_lora`, with equal answers."""
    tuned = bench.tuned(method)
    attached = bench.answers(tuned)
    fresh = bench.backbone()
    with tempfile.TemporaryDirectory() as folder:
        kind = _saved_kind(tuned, Path(folder))
        if kind == "LORA":
            import peft

            model = peft.PeftModel.from_pretrained(fresh.model, folder)
        elif any(isinstance(edit, ModelEdit) for _, edit in tuned.placed()):
            model = _converted(tuned, fresh.model)
        else:
            raise AssertionError(f"it is stored as peft's {kind}" if kind else "peft has no form for it")
    with torch.no_grad():
        difference = float((model.eval()(**bench.batch(fresh)).logits - attached).abs().max())
    assert difference <= 1e-3, f"as LoRA, an answer is {difference:.2g} away"


def _saved_kind(tuned: Tuned, folder: Path) -> str | None:
    """The type of the adapter that was written, None where there was none."""
    if not save_peft_adapter(tuned, folder):
        return None
    return str(json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["peft_type"])


def _converted(tuned: Tuned, fresh: Any) -> Any:
    """A fresh model with the LoRA that peft makes of its own method, at the rank that loses nothing."""
    import peft

    model: Any = tuned.model
    assert hasattr(peft, "convert_to_lora"), "the installed peft converts nothing to LoRA"
    assert model.supports_lora_conversion(), "peft does not convert it"
    config, tensors = peft.convert_to_lora(model, rank=1.0)
    plain = tuned.detach()
    for path in tuned.backbone.head:
        fresh.get_submodule(path).load_state_dict(plain.get_submodule(path).state_dict())
    lora = peft.get_peft_model(fresh, config)
    peft.set_peft_model_state_dict(lora, tensors)
    return lora


def leaves_the_base(method: Method, bench: Bench) -> None:
    """Taken off, it leaves the base to the byte as it was."""
    tuned = bench.tuned(method)
    in_place = {name for _, edit in tuned.placed() if isinstance(edit, Unfreeze) for name in edit.names}
    assert not in_place, "it trains parameters of the base in place"
    fresh = bench.backbone()
    plain = tuned.detach().state_dict()
    for name, value in fresh.model.state_dict().items():
        if not name.startswith(fresh.head):
            assert name in plain, f"taken off, `{name}` is gone"
            assert torch.equal(plain[name], value), f"taken off, `{name}` is not what it was"


def swaps(method: Method, bench: Bench) -> None:
    """Two trained states take turns on one attached model, each with its own answers, to the bit."""
    tuned = bench.tuned(method)
    states, answers = [], []
    for _ in range(2):
        states.append({name: value.clone() for name, value in tuned.state().items()})
        answers.append(bench.answers(tuned))
        bench.train(tuned, n_steps=2, learning_rate=1e-2)
    for number in (0, 1, 0):
        tuned.load_state(states[number])
        difference = float((bench.answers(tuned) - answers[number]).abs().max())
        assert difference == 0, f"put back, an answer is {difference:.2g} away"


def composes(method: Method, bench: Bench) -> None:
    """Beside a LoRA on queries and values, all of both is trained and the answers stay finite."""
    lora = LoRA(rank=2, roles=("query", "value"))
    n_alone = attach(bench.backbone(), method).n_trainable
    tuned = attach(bench.backbone(), Together(method, lora))
    added = [
        parameter for edit in list(tuned.edits)[-len(lora.sites(tuned.backbone)) :] for parameter in edit.parameters()
    ]
    n_added = sum(parameter.numel() for parameter in added)
    assert tuned.n_trainable == n_alone + n_added, f"{tuned.n_trainable} are trained, not {n_alone} + {n_added}"
    before = [parameter.detach().clone() for parameter in added]
    bench.train(tuned, n_steps=3, learning_rate=1e-2)
    assert bench.answers(tuned).isfinite().all(), "beside LoRA an answer is not finite"
    moved = [not torch.equal(parameter, value) for parameter, value in zip(added, before, strict=True)]
    assert any(moved), "the LoRA beside it stays where it was"


def in_bf16(method: Method, bench: Bench) -> None:
    """On a base in bf16, gradients arrive and answers are finite."""
    a_base_in_bf16_runs(method, bench)


def recomputes(method: Method, bench: Bench) -> None:
    """Gradient checkpointing gives the same gradients."""
    recomputed_it_has_the_same_gradients(method, bench)


CAPABILITIES: dict[str, Callable[[Method, Bench], None]] = {
    check.__name__: check
    for check in (
        runs,
        starts_as_base,
        merges,
        exports_to_lora,
        in_bf16,
        recomputes,
        leaves_the_base,
        swaps,
        composes,
    )
}
"""The questions by name; each one's docstring says what is asked."""
