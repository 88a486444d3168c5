"""The server that workers are forked from. It loads torch, transformers and peft once, which takes seconds: so it is
started as early as it is clear that something will run.
"""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from deltaproof.experiments.engines.slots import available_cores

PRELOAD = "deltaproof.experiments.engines.preload"
ALLOCATOR = {
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TOP_PAD_": "67108864",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256",
    "LRU_CACHE_CAPACITY": "16",
}
"""glibc's allocator gives large blocks back to the system and asks for them anew at every step; so it keeps them.
oneDNN and its binding in torch keep code for a thousand shapes each, hundreds of megabytes; so they keep less."""
ENGINES = ("local", "lanes", "auto")
"""Those that fork workers on this machine."""


def start() -> None:
    """Have the server load its libraries while the caller does something else; one that runs stays as it is."""
    multiprocessing.get_context("forkserver").set_forkserver_preload([PRELOAD])
    with _variables(ALLOCATOR):
        forkserver.ensure_running()


@contextlib.contextmanager
def started_early(fields: Mapping[str, Any]) -> Iterator[None]:
    """Start the server before this process loads torch itself, which the other core has time for meanwhile.

    Nothing is started that will not be needed, as far as that can be seen without loading anything; an error within,
    such as a setting that is wrong, ends what was started.

    Args:
        fields: those of a plan, not yet checked.
    """
    is_new = not is_running() and will_be_needed(fields)
    if is_new:
        start()
    try:
        yield
    except BaseException:
        if is_new:
            end()
        raise


def will_be_needed(fields: Mapping[str, Any]) -> bool:
    """Whether a plan of these fields will fork workers here. With one core nothing is gained by loading side by side.

    >>> will_be_needed({"model": "minilm", "data": "no_such_file.csv", "methods": "lora"})
    False
    """
    if available_cores() < 2 or fields.get("engine", "local") not in ENGINES:
        return False
    if any(fields.get(name) is None for name in ("model", "data", "methods")):
        return False
    data = fields["data"]
    is_file = isinstance(data, str | os.PathLike) and Path(data).suffix != "" and not fields.get("data_root")
    return not is_file or Path(data).expanduser().exists()


def is_running() -> bool:
    return _server()._forkserver_pid is not None


def end() -> None:
    """End the server at once, and not only when it has loaded everything."""
    server = _server()
    if server._forkserver_pid is not None:
        os.kill(server._forkserver_pid, signal.SIGKILL)
        server._stop()


def _server() -> Any:
    """Of multiprocessing, which offers no other way to end it early."""
    return forkserver._forkserver


@contextlib.contextmanager
def _variables(wanted: dict[str, str]) -> Iterator[None]:
    """Environment variables for a process that is about to start; those that the user has set stand."""
    missing = {key: value for key, value in wanted.items() if key not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for key in missing:
            del os.environ[key]
