"""The worker's side of the local engine: one errand in a process of its own."""

import importlib
import os
import signal
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from deltaproof.errors import ConfigError, DeltaproofError
from deltaproof.experiments.engines.parents import die_with_parent
from deltaproof.experiments.engines.ranks import devices_per_run, on_ranks
from deltaproof.experiments.engines.scripts import read_script


@dataclass(frozen=True)
class Surroundings:
    """What a worker must know of the process that started it."""

    modules: tuple[str, ...] = ()
    """Modules outside of this package that registered methods."""
    script: str | None = None
    """Path of the main script, where that registered methods."""
    environment: dict[str, str] = field(default_factory=dict)
    """Environment variables: the fork server knows those of its own start only."""


def work(errand: str | Callable[[Any], Any], request: Any, connection: Connection, surroundings: Surroundings) -> None:
    """Do an errand (one that `_do` knows by name, or a function) and send what became of it. Dies with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(surroundings.environment)
    threading.Thread(target=die_with_parent, args=(connection,), daemon=True).start()
    sending = threading.Lock()

    def send(*message: Any) -> None:
        with sending:
            connection.send(message)

    try:
        _meet_methods(surroundings)
        send("result", _do(errand, request, lambda *values: send("progress", *values)))
    except DeltaproofError as error:
        send("user_error", error)
    except BaseException:
        send("error", traceback.format_exc(limit=12))


def _do(errand: str | Callable[[Any], Any], request: Any, progress: Any) -> Any:
    if not isinstance(errand, str):
        return errand(request)
    if errand in ("run", "probe") and devices_per_run(request) > 1:
        return on_ranks(errand, request, progress)
    if errand == "run":
        from deltaproof.experiments.run import run

        return run(request, progress)
    if errand == "lanes":
        from deltaproof.experiments.lane_run import run_lanes

        return run_lanes(request, progress)
    if errand == "probe":
        from deltaproof.experiments.probe import probe

        return probe(request)
    from deltaproof.experiments.inspect import look

    return look(request)


def _meet_methods(surroundings: Surroundings) -> None:
    """Have the user's own methods registered here too."""
    for name in surroundings.modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"a module that registers methods must be importable by its name, `{name}` is not ({error}); "
                f"put it where `python -c 'import {name}'` finds it"
            ) from None
    if surroundings.script is not None:
        read_script(surroundings.script)
