"""The local engine: every run in a process of its own, forked from a server that has torch loaded already.

A process of its own makes peak memory attributable, survives a crash of the run, and leaves nothing behind.
"""

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from deltaproof.errors import DeltaproofError
from deltaproof.experiments.inspect import Facts, Question, look
from deltaproof.experiments.run import Job, Probe, probe, run
from deltaproof.methods import METHODS
from deltaproof.records.record import Record
from deltaproof.records.store import Store

ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": "1073741824", "MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TOP_PAD_": "67108864"}
"""glibc's allocator gives large blocks back to the system and asks for them anew at every step; with these it keeps them."""

OnProgress = Callable[[Job, int, int, dict[str, float]], None]


@dataclass
class _Running:
    job: Job
    process: Any
    connection: Connection


class LocalEngine:
    """Runs jobs one after another on one device, or side by side on several."""

    def __init__(self, devices: tuple[str, ...] = ("cpu",)) -> None:
        self.devices = devices
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["deltaproof.experiments.engines.preload"])

    def run(self, job: Job, on_progress: OnProgress = lambda job, step, n_steps, values: None) -> Record:
        """The job's record, from disk where it stands already. A run that the system kills twice did not fit into memory."""
        store = Store(job.folder)
        for attempt in (1, 2):
            kind, value = self._in_process(run, job, on_progress)
            if kind == "result":
                return value  # type: ignore[no-any-return]
            if kind == "user_error":
                raise value
            if kind == "killed" and attempt == 2:
                record = Record(job.spec, "out_of_memory", error="the system killed the run twice (signal 9): memory ran out")
                store.write(record)
                return record
            if kind == "error":
                record = Record(job.spec, "failed", error=value)
                store.write(record)
                return record
        raise AssertionError("two attempts end in one of the cases above")

    def look(self, question: Question) -> Facts:
        """What model and methods are; raises the user's errors."""
        kind, value = self._in_process(look, question)
        if kind == "result":
            return value  # type: ignore[no-any-return]
        if kind == "user_error":
            raise value
        if kind == "killed":
            raise DeltaproofError(f"`{question.model}` must fit into memory, the system killed the process that loaded it; take a smaller model")
        raise DeltaproofError(f"`{question.model}` must load, got an error:\n{value}")

    def probe(self, job: Job) -> Probe:
        """A few measured steps of the job; raises the user's errors."""
        kind, value = self._in_process(probe, job)
        if kind == "result":
            return value  # type: ignore[no-any-return]
        if kind == "killed":
            return Probe(0.0, 0.0, 0.0, 0, None, 0, out_of_memory=True)
        if kind == "user_error":
            raise value
        raise DeltaproofError(f"`{job.spec.contestant}` must be able to take a step, got an error:\n{value}")

    def _in_process(
        self, function: Callable[..., Any], job: Any, on_progress: OnProgress = lambda job, step, n_steps, values: None
    ) -> tuple[str, Any]:
        """What became of the job: (`result`, value), (`user_error`, exception), (`error`, traceback) or (`killed`, None)."""
        ours, theirs = self._context.Pipe()
        before = {key: os.environ.get(key) for key in ALLOCATOR}
        os.environ.update({key: value for key, value in ALLOCATOR.items() if before[key] is None})
        process = self._context.Process(target=_work, args=(function, job, theirs, _method_modules()), daemon=True)
        with _main_module_hidden():
            process.start()
        for key, value in before.items():
            if value is None:
                os.environ.pop(key)
        theirs.close()
        try:
            while True:
                wait([ours, process.sentinel])
                try:
                    message = ours.recv() if ours.poll() else None
                except (EOFError, ConnectionResetError):
                    message = None
                if message is None:
                    process.join()
                    if process.exitcode == -signal.SIGKILL:
                        return "killed", None
                    return "error", f"the run's process ended with code {process.exitcode} and left no word"
                if message[0] == "progress":
                    on_progress(job, *message[1:])
                else:
                    process.join()
                    return message[0], message[1]
        finally:
            if process.is_alive():
                process.kill()
                process.join()
            ours.close()


@contextlib.contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Keep the worker from running the user's script anew, unless a method is defined in that very script.

    multiprocessing imports the main module in every worker; a script without an `if __name__ == "__main__"` guard would
    start its own experiment over and over.
    """
    if any(kind.__module__ == "__main__" for _, kind in METHODS.items()):
        yield
        return
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _method_modules() -> tuple[str, ...]:
    """Modules outside of this package that registered methods; a worker has to import them to know those."""
    modules = {kind.__module__ for _, kind in METHODS.items()}
    return tuple(sorted(name for name in modules if name != "__main__" and not name.startswith("deltaproof.")))


def _work(function: Callable[..., Any], job: Any, connection: Connection, modules: tuple[str, ...]) -> None:
    """In the worker: do the job and send what became of it. Dies with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sending = threading.Lock()

    def send(message: tuple[Any, ...]) -> None:
        with sending:
            connection.send(message)

    def watch() -> None:
        try:
            connection.recv()  # the parent never sends: this returns when it is gone
        except (EOFError, OSError):
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        for name in modules:
            importlib.import_module(name)
        if function is run:
            result = run(job, lambda step, n_steps, values: send(("progress", step, n_steps, values)))
        else:
            result = function(job)
        send(("result", result))
    except DeltaproofError as error:
        send(("user_error", error))
    except BaseException:
        send(("error", traceback.format_exc(limit=12)))
