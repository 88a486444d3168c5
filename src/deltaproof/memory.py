"""Running out of memory, and how much a run took."""

import os
import resource
import sys
from pathlib import Path

import psutil
import torch

_SIGNS = ("not enough memory", "can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on an accelerator or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def is_one_of_several() -> bool:
    """Whether this process shares one training with others: then none may take another way than they do."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def free_cached(device: torch.device) -> None:
    """Give memory that torch keeps for later back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def free_device_bytes(device: torch.device) -> float | None:
    """What is free on an accelerator; None for the host, and where nobody can say."""
    return float(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else None


class KeptForGradient:
    """While it is entered, counts what forward passes keep for their gradients beside the model's parameters."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._held = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self._sizes: dict[int, int] = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)

    def _keep(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._held:
            self._sizes[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an output that a node keeps of itself would hold the node for ever

    def __enter__(self) -> "KeptForGradient":
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)

    @property
    def n_bytes(self) -> int:
        """Of tensors that lie in the same memory, once."""
        return sum(self._sizes.values())


class PeakMemory:
    """Peak memory of this process since the meter was made, minus what it held then.

    Attributable to a run because every run is a process of its own.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        clear = Path("/proc/self/clear_refs")
        if sys.platform == "linux" and os.access(clear, os.W_OK):
            clear.write_text("5")  # resets the kernel's peak counter to what is held now
        self.before: int = psutil.Process().memory_info().rss
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def host_bytes(self) -> int:
        return max(0, self._peak() - self.before)

    def held_bytes(self) -> int:
        """Host memory that is held now, minus what was held at the start."""
        now: int = psutil.Process().memory_info().rss
        return max(0, now - self.before)

    def device_bytes(self) -> int | None:
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None

    @staticmethod
    def _peak() -> int:
        status = Path("/proc/self/status")
        if status.exists():
            lines = status.read_text().splitlines()
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
