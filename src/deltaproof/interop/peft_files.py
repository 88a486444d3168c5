"""The result files of PEFT's own method comparison, one JSON per run, read with care.

`method_comparison/MetaMathQA` of the `peft` repository writes them. Used here: `run_info.experiment_name`,
`.peft_config`, `.train_config.model_id`, and of `train_info` its costs, `status` and `metrics`, whose last entry holds
the test accuracy.
"""

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltaproof.errors import RecordError

FULL_FINE_TUNING = "full fine-tuning"


@dataclass(frozen=True)
class PeftRun:
    """What one result file says; `method` is its PEFT type, or "full fine-tuning" where it has no PEFT config."""

    name: str
    file: str
    method: str
    model: str
    accuracy: float
    n_trainable: int
    peak_memory_bytes: int
    train_seconds: float
    stored_bytes: int


def read_runs(folder: Path, n_test: int) -> tuple[list[PeftRun], list[str]]:
    """Every finished run in `folder`, and notes on what a reader should know of the rest.

    Raises RecordError, naming file and key, for a file that is no such result.
    """
    if not folder.is_dir():
        raise RecordError(f"`{folder}` must be a folder of PEFT result files, found no folder there; check the path")
    runs, notes = [], []
    for path in sorted(folder.glob("*.json")):
        result = _ResultFile(path)
        if (status := result.text("train_info.status")) == "success":
            runs.append(_read_run(result, n_test))
        else:
            notes.append(f"Left out: {path.name}, whose status is `{status}`.")
    if not runs:
        raise RecordError(f"`{folder}` must hold result files (*.json) of finished runs, got none; check the path")
    if len(models := sorted({run.model for run in runs})) > 1:
        notes.append(f"Several base models are ranked together: {', '.join(models)}.")
    name, count = Counter(run.name for run in runs).most_common(1)[0]
    if count > 1:
        raise RecordError(
            f"each run must have a name of its own in `{folder}`, got {count} files of `{name}`; keep one of them there"
        )
    return runs, notes


def _read_run(result: "_ResultFile", n_test: int) -> PeftRun:
    is_full = result.get("run_info.peft_config") is None
    memory = "train_info.accelerator_memory_max"
    if not result.has(memory) and result.has("train_info.cuda_memory_max"):  # its name until late in 2025
        memory = "train_info.cuda_memory_max"
    return PeftRun(
        name=result.text("run_info.experiment_name"),
        file=result.path.name,
        method=FULL_FINE_TUNING if is_full else result.text("run_info.peft_config.peft_type").lower(),
        model=result.text("run_info.train_config.model_id"),
        accuracy=result.accuracy(n_test),
        n_trainable=int(result.number("train_info.num_trainable_params")),
        peak_memory_bytes=int(result.number(memory)),
        train_seconds=result.number("train_info.train_time"),
        stored_bytes=int(result.number("train_info.file_size")),
    )


class _ResultFile:
    """One file by dotted keys, where -1 is the last entry of a list; an error names the file and the key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise RecordError(f"`{path}` must be JSON, got {error}; fetch it again or move it elsewhere") from None

    def get(self, key: str) -> Any:
        value = self._content
        for part in key.split("."):
            try:
                value = value[int(part) if isinstance(value, list) else part]
            except (KeyError, IndexError, TypeError, ValueError):
                raise self._error(key, "must be there, got nothing") from None
        return value

    def has(self, key: str) -> bool:
        try:
            self.get(key)
        except RecordError:
            return False
        return True

    def text(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str):
            raise self._error(key, f"must be a text, got {value!r:.60}")
        return value

    def number(self, key: str, top: float = math.inf) -> float:
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= min(top, 1e300):
            raise self._error(key, f"must be a number in 0..{top:g}, got {value!r:.60}")
        return float(value)

    def accuracy(self, n_test: int) -> float:
        """The last test accuracy; one that is no whole number of correct answers gives a wrong `n_test` away."""
        value = self.number("train_info.metrics.-1.test accuracy", top=1)
        if abs(value * n_test - round(value * n_test)) > 0.01:
            raise RecordError(
                f"`test accuracy * n_test` must be a whole number of answers in `{self.path}`, got {value} * {n_test} "
                f"= {value * n_test:.2f}; give the size of the test split of these runs as `n_test`"
            )
        return value

    def _error(self, key: str, rule: str) -> RecordError:
        return RecordError(
            f"in a PEFT result file `{key}` {rule} in `{self.path}`; fetch the file again or move it elsewhere"
        )
