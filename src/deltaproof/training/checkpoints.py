"""Where a training stood, so that a killed one goes on to the same result: safetensors and JSON, never pickle."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from deltaproof.records.store import write_atomically, write_json

EVERY_SECONDS = 60.0
"""A checkpoint is written no more often than this: what a kill may cost, against what writing costs."""
SHARE_OF_TIME = 0.05
"""Nor may writing take more of the time than this, however large the model."""


class Checkpoint:
    """One training's last resting place on disk. `save` replaces it whole; `load` finds nothing or all of it."""

    def __init__(self, folder: Path, every_seconds: float = EVERY_SECONDS) -> None:
        self.folder = folder
        self._pause = every_seconds
        self._last = time.monotonic()

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self._last >= self._pause

    def save(self, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Write what a training is after `step` steps."""
        started, name = time.monotonic(), f"step-{step}.safetensors"
        stored = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
        write_atomically(self.folder / name, safetensors.torch.save(stored))
        write_json(self._facts, {"step": step, "tensors": name, **facts})  # points at the tensors, so it comes last
        for old in self.folder.glob("step-*.safetensors"):
            if old.name != name:
                old.unlink()
        self._last = time.monotonic()
        if self._pause > 0:
            self._pause = max(self._pause, (self._last - started) / SHARE_OF_TIME)

    def load(self) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """Steps taken, tensors and facts as they were saved; None where there is no checkpoint."""
        if not self._facts.exists():
            return None
        facts = json.loads(self._facts.read_text(encoding="utf-8"))
        return int(facts["step"]), safetensors.torch.load_file(self.folder / facts["tensors"]), facts

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _facts(self) -> Path:
        return self.folder / "checkpoint.json"
