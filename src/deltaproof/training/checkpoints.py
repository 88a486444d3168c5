"""Where a training stood, so that a killed one goes on to the same result: safetensors and JSON, never pickle."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from deltaproof.records.store import write_atomically, write_json

EVERY_SECONDS = 60.0
"""A checkpoint is written no more often than this: what a kill may cost, against what writing costs."""


class Checkpoint:
    """One training's last resting place on disk. `save` replaces it whole; `restore` finds nothing or all of it."""

    def __init__(self, folder: Path, every_seconds: float = EVERY_SECONDS) -> None:
        self.folder = folder
        self.every_seconds = every_seconds
        self._last = time.monotonic()

    def save(self, step: int, trained: dict[str, Any], optimizer: Any, outcome: Any, best: Any) -> None:
        """Write after `step` steps, if the last time was long enough ago."""
        if time.monotonic() - self._last < self.every_seconds:
            return
        tensors: dict[str, Tensor] = {f"value/{name}": parameter.detach() for name, parameter in trained.items()}
        tensors |= {f"best/{name}": value for name, value in best.state.items()}
        for name, parameter in trained.items():
            for key, value in optimizer.state[parameter].items():
                tensors[f"optimizer/{key}/{name}"] = value
        tensors["random/cpu"] = torch.get_rng_state()
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            tensors["random/cuda"] = torch.cuda.get_rng_state()
        name = f"step-{step}.safetensors"
        contiguous = {key: value.cpu().contiguous().clone() for key, value in tensors.items()}
        write_atomically(self.folder / name, safetensors.torch.save(contiguous))
        facts = {"step": step, "tensors": name, "history": outcome.history, "notes": outcome.notes, "best": best.scores}
        facts |= {key: getattr(outcome, key) for key in ("train_seconds", "examples_seen", "tokens_seen")}
        facts["evaluations_since"] = best.evaluations_since
        write_json(self.folder / "checkpoint.json", facts)  # points at the tensors, so it comes last
        for old in self.folder.glob("step-*.safetensors"):
            if old.name != name:
                old.unlink()
        self._last = time.monotonic()

    @torch.no_grad()
    def restore(self, trained: dict[str, Any], optimizer: Any, outcome: Any, best: Any) -> int:
        """Put everything back as it was; returns the number of steps taken, 0 where there is no checkpoint."""
        path = self.folder / "checkpoint.json"
        if not path.exists():
            return 0
        facts = json.loads(path.read_text())
        tensors = safetensors.torch.load_file(self.folder / facts["tensors"])
        for name, parameter in trained.items():
            parameter.copy_(tensors[f"value/{name}"])
            keys = [key for key in tensors if key.startswith("optimizer/") and key.endswith(f"/{name}")]
            state = {key.split("/")[1]: tensors[key] for key in keys}
            optimizer.state[parameter] = {
                key: value.to(parameter.device) if value.shape == parameter.shape else value for key, value in state.items()
            }
        best.state = {key.removeprefix("best/"): value for key, value in tensors.items() if key.startswith("best/")}
        best.scores, best.evaluations_since = facts["best"], facts["evaluations_since"]
        outcome.history, outcome.notes = facts["history"], facts["notes"]
        for key in ("train_seconds", "examples_seen", "tokens_seen"):
            setattr(outcome, key, facts[key])
        torch.set_rng_state(tensors["random/cpu"])
        if "random/cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random/cuda"])
        return int(facts["step"])

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
