"""Trackers: the curves of an experiment in a tool that the user already runs; nothing leaves the machine by default.

Everything is written below one folder. A destination elsewhere is used only where the user named it in the tool's own
variable (`WANDB_MODE`, `MLFLOW_TRACKING_URI`, `TRACKIO_SPACE_ID`); the tools' usage reports are switched off unless
the user switched them on.
"""

import contextlib
import importlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from deltaproof.errors import ConfigError, MissingExtraError
from deltaproof.registry import Registry


class Tracker(Protocol):
    """What an experiment says about itself while it runs; runs may take turns in any order."""

    def start(self, experiment: str, config: Mapping[str, Any]) -> None:
        """Open `experiment`; `config` is its plan and is attached to every run."""

    def log(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Add `values` to the curves of `run` at `step`; the first call of a name opens that run."""

    def finish(self) -> None:
        """Close every run and write out what is buffered."""


TRACKERS: Registry[Callable[[Path], Tracker]] = Registry("tracker")


def open_tracker(name: str, folder: Path | str) -> Tracker:
    """The tracker called `name` (trackio, mlflow, wandb, tensorboard), writing below `folder`.

    Raises ConfigError for an unknown name, MissingExtraError where its package is not installed.
    """
    make = TRACKERS[name]
    place = Path(folder).resolve()
    place.mkdir(parents=True, exist_ok=True)
    with _quiet():
        return make(place)


@TRACKERS.add("trackio")
class TrackioTracker:
    """A local SQLite file per experiment in `folder`; look at it with `TRACKIO_DIR=<folder> trackio show`."""

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(folder))  # read once, when trackio is imported
        self._trackio = _import("trackio", "trackio")
        self._run: Any = None
        self._name = ""

    def start(self, experiment: str, config: Mapping[str, Any]) -> None:
        self._experiment, self._config = experiment, dict(config)

    def log(self, run: str, step: int, values: Mapping[str, float]) -> None:
        with _quiet():
            if self._run is None or run != self._name:  # trackio has one open run; `init` closes it and reopens another
                self._run = self._trackio.init(
                    project=self._experiment,
                    name=run,
                    config=self._config,
                    resume="allow",
                    embed=False,
                    auto_log_gpu=False,
                    auto_log_cpu=False,
                )
                self._name = run
            self._run.log(dict(values), step=step)

    def finish(self) -> None:
        if self._run is not None:
            with _quiet():
                self._trackio.finish()
            self._run = None


@TRACKERS.add("mlflow")
class MlflowTracker:
    """An SQLite store in `folder`; look at it with `mlflow ui --backend-store-uri sqlite:///<folder>/mlflow.db`."""

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        self._entities = _import("mlflow.entities", "mlflow")
        place = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        self._client = _import("mlflow", "mlflow").MlflowClient(tracking_uri=place)
        self._artifacts = (folder / "artifacts").as_uri() if place.startswith("sqlite:") else None
        self._runs: dict[str, str] = {}

    def start(self, experiment: str, config: Mapping[str, Any]) -> None:
        with _quiet():
            known = self._client.get_experiment_by_name(experiment)
            self._experiment: str = (
                known.experiment_id
                if known
                else self._client.create_experiment(experiment, artifact_location=self._artifacts)
            )
        self._config = dict(config)

    def log(self, run: str, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        with _quiet():
            metrics = [self._entities.Metric(key, float(value), now, step) for key, value in values.items()]
            self._client.log_batch(self._id(run), metrics=metrics)

    def _id(self, run: str) -> str:
        if run not in self._runs:
            self._runs[run] = self._client.create_run(self._experiment, run_name=run).info.run_id
            for key, value in self._config.items():
                self._client.log_param(self._runs[run], key, str(value)[:6000])  # the longest value that MLflow stores
        return self._runs[run]

    def finish(self) -> None:
        with _quiet():
            for run_id in self._runs.values():
                self._client.set_terminated(run_id)
        self._runs = {}


@TRACKERS.add("wandb")
class WandbTracker:
    """Offline runs in `folder/wandb`; `wandb sync` sends them, once the user wants that. `WANDB_MODE` is obeyed."""

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")
        self._wandb = _import("wandb", "wandb")
        self._folder = folder
        self._runs: dict[str, Any] = {}

    def start(self, experiment: str, config: Mapping[str, Any]) -> None:
        self._experiment, self._config = experiment, dict(config)

    def log(self, run: str, step: int, values: Mapping[str, float]) -> None:
        with _quiet():
            if run not in self._runs:
                self._runs[run] = self._wandb.init(
                    project=self._experiment,
                    name=run,
                    config=self._config,
                    dir=str(self._folder),
                    mode=os.environ.get("WANDB_MODE", "offline"),
                    reinit="create_new",  # several runs open side by side
                )
            self._runs[run].log(dict(values), step=step)

    def finish(self) -> None:
        with _quiet():
            for run in self._runs.values():
                run.finish()
        self._runs = {}


@TRACKERS.add("tensorboard")
class TensorboardTracker:
    """Event files in `folder/<experiment>/<run>`; look at them with `tensorboard --logdir <folder>`."""

    def __init__(self, folder: Path) -> None:
        self._writer = _import("torch.utils.tensorboard", "tensorboard").SummaryWriter
        self._folder = folder
        self._runs: dict[str, Any] = {}

    def start(self, experiment: str, config: Mapping[str, Any]) -> None:
        self._place = self._folder / _file_name(experiment)
        self._config = dict(config)

    def log(self, run: str, step: int, values: Mapping[str, float]) -> None:
        if run not in self._runs:
            self._runs[run] = self._writer(str(self._place / _file_name(run)))
            self._runs[run].add_text("config", f"```\n{json.dumps(self._config, indent=1, default=str)}\n```")
        for key, value in values.items():
            self._runs[run].add_scalar(key, float(value), step)

    def finish(self) -> None:
        for writer in self._runs.values():
            writer.close()
        self._runs = {}


def _import(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"`--track {extra}` needs the package `{extra}`, got {error}; "
            f"install it with `pip install 'deltaproof[{extra}]'`, or leave `--track` out"
        ) from None


def _file_name(name: str) -> str:
    """`name` as one path component, so that no run name reaches out of its folder."""
    safe = re.sub(r"[^\w.,=()+-]+", "_", name).strip(".")
    if not safe:
        raise ConfigError(f"a run or experiment needs a name with letters or digits, got {name!r}; give it one")
    return safe


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What a tool prints goes to stderr: stdout is for data alone."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
