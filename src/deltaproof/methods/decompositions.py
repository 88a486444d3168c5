"""Principal directions of frozen weights, kept on disk from one run of an experiment to the next."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from deltaproof.records.store import write_atomically

_FOLDER: ContextVar[Path | None] = ContextVar("folder of decompositions", default=None)


@contextmanager
def decompositions_in(folder: Path) -> Iterator[None]:
    """Keep what `principal_directions` finds in this folder, and look there first, until the end of the block."""
    token = _FOLDER.set(folder)
    try:
        yield
    finally:
        _FOLDER.reset(token)


@torch.no_grad()
def principal_directions(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The first right singular vectors of a weight, with signs fixed, and its singular values.

    They come from the eigenvectors of the smaller of W^T W and W W^T, in fp64 whatever the weight's precision: several
    times faster than a decomposition of W, which only a weight of deficient rank needs.

    Args:
        weight: (d_out, d_in).
        rank: how many directions, at most min(d_out, d_in).
    Returns:
        (rank, d_in), orthonormal rows in fp32, the largest entry of each positive (the first of those within 1e-6 of
        it); and (rank + 1,) singular values in fp64, with 0 for one behind the last. Both on the weight's device.
    """
    folder = _FOLDER.get()
    if folder is None:
        return _decomposed(weight, rank)
    path = folder / f"{_key(weight, rank)}.safetensors"
    found = _read(path)
    if found is None:
        p, values = _decomposed(weight, rank)
        write_atomically(path, safetensors.torch.save({"p": p.cpu().contiguous(), "values": values.cpu().contiguous()}))
        return p, values
    return found[0].to(weight.device), found[1] if weight.device.type == "mps" else found[1].to(weight.device)


def _key(weight: Tensor, rank: int) -> str:
    """What decides the result to the bit: the weight, the rank, and whose routines run on how many threads."""
    facts = (
        torch.__version__, torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), weight.device.type,
        str(weight.dtype), tuple(weight.shape), rank,
    )  # fmt: skip
    content = weight.detach().cpu().contiguous().view(torch.uint8).numpy()
    digest = hashlib.sha256(repr(facts).encode())
    digest.update(content.data)
    return digest.hexdigest()[:32]


def _read(path: Path) -> tuple[Tensor, Tensor] | None:
    """What was kept; None where there is nothing, or nothing that can be read."""
    try:
        tensors = safetensors.torch.load(path.read_bytes())
        return tensors["p"], tensors["values"]
    except (OSError, safetensors.SafetensorError, KeyError):
        return None


def _decomposed(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    w = (weight.detach().cpu() if weight.device.type == "mps" else weight.detach()).double()  # MPS has no fp64
    is_wide = w.shape[0] < w.shape[1]
    squares, vectors = torch.linalg.eigh(w @ w.T if is_wide else w.T @ w)
    values, vectors = squares.flip(0).clamp_min(0).sqrt(), vectors.flip(1)[:, :rank]
    if not is_wide:
        p = vectors.T
    elif squares[-rank] > 1e-10 * squares[-1]:
        p = vectors.T @ w / values[:rank, None]
    else:  # dividing by a vanishing value would leave rounding alone
        p = torch.linalg.svd(w, full_matrices=False).Vh[:rank]
    size = p.abs()
    largest = (size >= (1 - 1e-6) * size.amax(1, keepdim=True)).int().argmax(1, keepdim=True)
    p = (p * p.gather(1, largest).sign()).float().contiguous()  # as it comes back from disk: the layout decides bits
    return p, F.pad(values, (0, 1))[: rank + 1]
