"""Where a run took place: versions of libraries and hardware, without importing any of them."""

import functools
import os
import platform
import sys
from importlib import metadata
from typing import Any

import psutil

DECISIVE = ("deltaproof", "torch", "transformers", "peft", "accelerate", "tokenizers")
"""Libraries whose version can move a score: part of a spec, so that runs of different versions are never pooled."""

ALSO = ("safetensors", "numpy", "scipy", "scikit-learn", "pyarrow", "datasets")


def versions(names: tuple[str, ...] = DECISIVE) -> dict[str, str]:
    """Version by library name; a library that is not installed is left out."""
    found = {name: _version(name) for name in names}
    return {name: version for name, version in found.items() if version is not None}


@functools.cache
def _version(name: str) -> str | None:
    """Read once in a process: it means to search through all that is installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def environment() -> dict[str, Any]:
    """What a reader needs to judge or repeat the costs."""
    return {
        "versions": versions(DECISIVE + ALSO),
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "accelerators": _accelerators(),
    }


def _processor() -> str:
    if sys.platform == "linux":
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def _accelerators() -> list[str]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
