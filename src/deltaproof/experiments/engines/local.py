"""The local engine: every run in a process of its own, forked from a server that has torch loaded already.

A process of its own makes peak memory attributable, survives a crash of the run, and leaves nothing behind.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import psutil

from deltaproof.errors import ConfigError, DeltaproofError
from deltaproof.experiments.engines import fork_server
from deltaproof.experiments.engines.answers import facts_from, probe_from, record_from, stored
from deltaproof.experiments.engines.engine import OnProgress, Stopped, ignore
from deltaproof.experiments.engines.slots import Slots, plan_slots
from deltaproof.experiments.engines.worker import Surroundings, work
from deltaproof.experiments.jobs import Facts, Job, Probe, Question
from deltaproof.experiments.memory_plan import MARGIN
from deltaproof.records.record import Record

MEMORY_SHARE = 0.8
"""Of the free memory that trainings may fill together, where no limit is given."""
Do = str | Callable[[Any], Any]
"""One of the worker's errands by its name, or a function."""


class LocalEngine:
    """Runs jobs on this machine, as many side by side as there are slots; may be called from several threads."""

    def __init__(self, told: Surroundings | None = None, memory: int | None = None) -> None:
        """Args:
        told: what workers are told of the process that started them; of this one when left out.
        memory: bytes that runs may fill together; a share of what is free when left out.
        """
        self._surroundings, self._memory = told or surroundings(), memory
        self._context = multiprocessing.get_context("forkserver")
        self.open_slots(1)
        self._queue = threading.Lock()
        self._starting = threading.Lock()
        self._running: set[Any] = set()
        self._is_stopped = False

    def open_slots(self, n_workers: int) -> None:
        """Let so many jobs run at once from now on; to be called while none runs."""
        self._n_slots = n_workers
        self._slots = threading.Semaphore(n_workers)

    def stop(self) -> None:
        """End every job under way; the threads that wait for them get `Stopped`."""
        with self._starting:
            self._is_stopped = True
            for process in self._running:
                process.kill()

    def start(self) -> None:
        """Have the fork server load its libraries while the caller does something else."""
        fork_server.start()

    def slots(self, device: str, n_workers: int | None) -> Slots:
        return plan_slots(device, n_workers)

    def memory_bytes(self) -> float:
        free = float(psutil.virtual_memory().available)
        return free * MEMORY_SHARE if self._memory is None else min(free, self._memory / MARGIN)

    def workers_in_memory(self, peak_memory_bytes: int, most: int) -> int:
        return max(1, min(most, int(self.memory_bytes() // max(1, peak_memory_bytes))))

    def close(self) -> None:
        """Nothing is held: every run has ended with its process."""

    def run(self, job: Job, on_progress: OnProgress = ignore) -> Record:
        """The job's record. A run that the system kills is tried once more, alone; killed again, it did not fit."""
        for is_alone in (False, True):
            kind, value = self.attempt("run", job, on_progress, is_alone)
            if kind != "killed":
                return record_from(job, kind, value)
        reason = "the system killed the run twice (signal 9): memory ran out"
        return stored(job, Record(job.spec, "out_of_memory", error=reason))

    def look(self, question: Question) -> Facts:
        return facts_from(question, *self.attempt("look", question))

    def probe(self, job: Job) -> Probe:
        """A few measured steps of the job, killed ones taken again alone; raises the user's errors."""
        for is_alone in (False, True):
            kind, value = self.attempt("probe", job, is_alone=is_alone)
            if kind != "killed":
                return probe_from(job, kind, value)
        return Probe(out_of_memory=True)

    def call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """What a function makes of its argument in a process of its own; killed, it is tried once more, alone.

        Args:
            function: of a module's top level, so that the process finds it by its name.
        Raises:
            DeltaproofError: the function raised it, met a bug, or was killed twice.
        """
        for is_alone in (False, True):
            kind, value = self.attempt(function, argument, is_alone=is_alone)
            if kind == "result":
                return value
            if kind == "user_error":
                raise value
            if kind == "error":
                raise DeltaproofError(f"`{function.__name__}` must come to its end, got an error:\n{value}")
        raise DeltaproofError(
            f"`{function.__name__}` must fit into memory, the system killed its process twice (signal 9); close other "
            f"programs, or take fewer rows"
        )

    def attempt(
        self, errand: Do, request: Any, on_progress: OnProgress = ignore, is_alone: bool = False
    ) -> tuple[str, Any]:
        """Do an errand (`look`, `probe`, `run`, or a function) in a process of its own, once.

        Returns:
            What became of it: (`result`, value), (`user_error`, exception), (`error`, traceback) or (`killed`, None).
        """
        with self._places(self._n_slots if is_alone else 1):
            outcome = self._supervised(errand, request, on_progress)
        if self._is_stopped:
            raise Stopped
        return outcome

    @contextlib.contextmanager
    def _places(self, n: int) -> Iterator[None]:
        """Hold `n` slots. Whoever waits for several keeps the next from taking one."""
        slots = self._slots
        with self._queue:
            for _ in range(n):
                slots.acquire()
        try:
            yield
        finally:
            slots.release(n)

    def _supervised(self, errand: Do, request: Any, on_progress: Callable[..., None]) -> tuple[str, Any]:
        ours, theirs = self._context.Pipe()
        with self._starting:  # one at a time, as the main module of this process is hidden meanwhile
            if self._is_stopped:
                raise Stopped
            self.start()
            arguments = (errand, request, theirs, self._surroundings)
            process = self._context.Process(target=work, args=arguments, daemon=True)
            with _main_module_hidden():
                process.start()
            self._running.add(process)
        theirs.close()
        try:
            while (message := _next_message(ours, process)) is not None:
                if message[0] != "progress":
                    process.join()
                    return message[0], message[1]
                on_progress(*message[1:])
            process.join()
            if process.exitcode == -signal.SIGKILL:
                return "killed", None
            return "error", f"the process ended with code {process.exitcode} and left no word"
        finally:
            if process.is_alive():
                process.kill()
                process.join()
            with self._starting:
                self._running.discard(process)
            ours.close()


def _next_message(connection: Connection, process: Any) -> tuple[Any, ...] | None:
    """What the worker sends next; None once it has ended without another word."""
    wait([connection, process.sentinel])
    try:
        return connection.recv() if connection.poll() else None
    except (EOFError, ConnectionResetError):
        return None


def surroundings() -> Surroundings:
    """What a worker has to be told, so that it knows the methods that are known here.

    Raises:
        ConfigError: a method was registered where no worker can read it, such as in a notebook.
    """
    from deltaproof.methods import METHODS  # brings torch, which a node that only passes an errand on does not need

    modules = {kind.__module__ for _, kind in METHODS.items()}
    own = tuple(sorted(name for name in modules if name != "__main__" and not name.startswith("deltaproof.")))
    script = None
    if "__main__" in modules:
        script = getattr(sys.modules["__main__"], "__file__", None)
        if script is None or not Path(script).is_file():
            raise ConfigError(
                "a method must be registered in a file that other processes can read, got one from a notebook or from "
                "standard input; put the class into a module and import it"
            )
    return Surroundings(own, script, dict(os.environ))


@contextlib.contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Keep multiprocessing from running the user's script anew in every worker.

    A script without an `if __name__ == "__main__"` guard would start its own experiment over and over. Where the script
    defines methods, the worker reads it in its own way (`engines/worker.py`).
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
