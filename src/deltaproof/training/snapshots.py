"""What was trained, as it stood at a few moments of a training: for questions about the way, asked once it is over."""

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from deltaproof.errors import RecordError
from deltaproof.methods.tuned import Tuned
from deltaproof.records.store import write_json
from deltaproof.saving import streaming

SHARES = (0.1, 0.25, 0.5, 0.75)
"""Of the optimiser steps: early enough to find models that are still poor, few enough to keep."""
WHOLE = "snapshots.json"
_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}


class Snapshots:
    """Writes the trained parameters at `SHARES` of a training; a training that goes on finds the earlier ones there."""

    def __init__(self, folder: Path, n_steps: int) -> None:
        self.folder = folder
        self.steps = {max(1, round(share * n_steps)) for share in SHARES} - {n_steps}

    def see(self, step: int, trained: Mapping[str, Tensor]) -> None:
        """Called after `step` steps."""
        if step in self.steps:
            write_tensors(self.folder / f"step-{step}.safetensors", trained)

    def finish(self) -> None:
        """Called when the training is over: what is there is all."""
        write_json(self.folder / WHOLE, {"steps": sorted(self.steps)})


def snapshots_in(folder: Path) -> dict[int, Path]:
    """The files by the steps that had been taken, in their order; none of a training that did not come to its end."""
    if not (folder / WHOLE).exists():
        return {}
    found = {int(path.stem.removeprefix("step-")): path for path in folder.glob("step-*.safetensors")}
    return dict(sorted(found.items()))


@torch.no_grad()
def put_snapshot(tuned: Tuned, path: Path) -> None:
    """Give a tuned model the values that its training had then.

    Raises:
        RecordError: the file is of another method or model.
    """
    values, trained = safetensors.torch.load_file(path), tuned.trained()
    if values.keys() != trained.keys():
        raise RecordError(
            f"`{path}` must hold what `{tuned.method.label}` trains, got other tensors "
            f"({sorted(values.keys() ^ trained.keys())[0]}); delete it"
        )
    for name, value in values.items():
        trained[name].copy_(value)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file written whole or not at all, one tensor after the other.

    The library's own `save` holds every tensor a second time: the run's peak memory, which is measured, would be that
    of the snapshot.
    """
    layout = ((name, _DTYPES[each.dtype], tuple(each.shape), each.nbytes) for name, each in tensors.items())
    flat = (each.detach().cpu().contiguous().reshape(-1) for each in tensors.values())
    streaming.write_tensors(path, layout, (each.view(torch.uint8).numpy().data for each in flat), {})
