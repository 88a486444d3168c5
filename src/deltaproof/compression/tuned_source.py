"""A tuned model that `train` or `compare` saved, as an update to compress."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from deltaproof.compression.source import Part, Source
from deltaproof.errors import CompressionError
from deltaproof.methods.dora import Decomposed
from deltaproof.methods.edits import Edit
from deltaproof.methods.ia3 import InputGain, OutputGain
from deltaproof.methods.lora import LowRank
from deltaproof.methods.pica import InPrincipalSpan
from deltaproof.methods.tuned import Tuned, started
from deltaproof.saving.folder import load_tuned
from deltaproof.tasks.text import TextTask

Start = Literal["init", "zero"]

_FACTORS: tuple[tuple[type[Edit], dict[str, str]], ...] = (
    (LowRank, {"a": "A", "b": "B"}),
    (Decomposed, {"a": "A", "b": "B"}),
    (InPrincipalSpan, {"m": "M"}),
    (OutputGain, {"gain": "gain"}),
    (InputGain, {"gain": "gain"}),
)
"""The edits that are known to survive, with their tensors that are compressed. DoRA's lengths, PiCa's directions and
all that belongs to other edits stay whole: their start is random or their scale carries the answer."""


class TunedSource(Source):
    """The state of a tuned model: factors and gains to compress, heads, norms, biases and all else to keep."""

    def __init__(self, tuned: Tuned, task: TextTask, spec: dict[str, Any], start: Start = "init") -> None:
        self.tuned = tuned
        self._state = {name: tensor.clone() for name, tensor in tuned.state().items()}
        factors = dict(_factors(tuned))
        if not factors.keys() & self._state.keys():
            raise CompressionError(
                f"what is compressed are factors of LoRA, DoRA and PiCa, gains of IA3, and full updates, "
                f"`{spec['contestant']}` has none; ship its folder as it is"
            )
        self._first = initial_state(tuned, int(spec["seed"]))
        self.parts = [
            Part(name, tuple(tensor.shape), tensor.dtype, self._start_of(name, start, factors), *factors.get(name, ()))
            for name, tensor in sorted(self._state.items())
        ]
        self.facts = {"holds": "tuned", "start": start, "spec": spec, "task": asdict(task), "base": spec["model"]}

    @classmethod
    def read(
        cls, folder: Path, start: Start = "init", trust_remote_code: bool = False, base: str | None = None
    ) -> "TunedSource":
        """From a folder with `deltaproof.json`."""
        tuned, task, spec = load_tuned(folder, trust_remote_code, base)
        return cls(tuned, task, spec, start)

    def tensor(self, part: Part) -> Tensor:
        return self._state[part.name]

    def start(self, part: Part) -> Tensor | None:
        return self._first[part.name] if part.start == "init" else None

    def _start_of(self, name: str, start: Start, factors: dict[str, tuple[str, str]]) -> str | None:
        if name not in factors:
            return None
        first = self._first[name]
        if bool((first == 1).all()):
            return "one"
        return "zero" if start == "zero" or not bool(first.any()) else "init"


@torch.no_grad()
def initial_state(tuned: Tuned, seed: int) -> dict[str, Tensor]:
    """What the edits of a tuned model started from, by the names of its state; the model itself is left as it is."""
    return started(tuned.backbone, tuned.method, seed).state()


def _factors(tuned: Tuned) -> Iterator[tuple[str, tuple[str, str]]]:
    """Factor and module of each tensor that is compressed, by its name in the state."""
    known = dict(_FACTORS)
    for place, (_, edit) in zip(tuned.places(), tuned.placed(), strict=True):
        for attribute, factor in known.get(type(edit), {}).items():
            yield f"{place}.{attribute}", (factor, place)
