"""One run by several processes of torch.distributed, watched from the worker: one that dies ends them all."""

import os
import signal
import tempfile
import time
import warnings
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from deltaproof.errors import RecordError
from deltaproof.experiments.engines.answers import stored
from deltaproof.experiments.engines.rank import take_part
from deltaproof.experiments.jobs import Job, Probe
from deltaproof.records.record import Record

GRACE_SECONDS = 2.0
"""When one process stumbles the others do, as it no longer answers: so long the first cause may take to be seen."""
CAUSES = ("user_error", "lost", "out_of_memory", "error")
"""What may end a run; of several the first of these is the cause, the others follow from it."""


class LostRankError(RuntimeError):
    """One of the processes of a run ended before the run did."""


class Rank:
    """One of the processes, seen from the worker."""

    def __init__(self, pid: int, connection: Connection) -> None:
        self.pid, self.connection = pid, connection
        self._code: int | None = None

    def wait(self) -> int:
        """Its exit code, once it has ended; the negative signal, if one ended it."""
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code

    def end(self) -> None:
        """Kill it if it runs yet."""
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)
        self.wait()
        self.connection.close()


def devices_per_run(job: Job) -> int:
    """How many devices, and so processes, a job's training is spread over."""
    return int(job.spec.training.get("devices_per_run", 1))


def on_ranks(errand: str, job: Job, progress: Callable[..., None]) -> Record | Probe:
    """Do a run or a probe by as many processes as its spec names devices; what rank 0 makes of it is the answer.

    Raises:
        LostRankError: a process was killed or met a bug; the others are ended. DeltaproofError: the user's errors.
    """
    if job.restore:
        raise RecordError(
            f"the tuned model of `{job.spec.contestant}`, seed {job.spec.seed}, was not kept, and a training over "
            f"several devices is not repeated for it; compare in a new folder with `--keep all`"
        )
    n_ranks = devices_per_run(job)
    ranks: list[Rank] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for rank in range(n_ranks):
                ranks.append(_start(errand, job, rank, n_ranks, Path(folder) / "meeting", ranks))
            kind, value = _outcome(ranks, progress)
        finally:
            for each in ranks:
                each.end()
    if kind == "user_error":
        raise value
    if kind == "out_of_memory":
        return (
            Probe(out_of_memory=True)
            if errand == "probe"
            else stored(job, Record(job.spec, "out_of_memory", error=value))
        )
    if kind != "result":
        raise LostRankError(value)
    return value  # type: ignore[no-any-return]


def _start(errand: str, job: Job, rank: int, n_ranks: int, meeting: Path, others: list[Rank]) -> Rank:
    """Forked from the worker, which has its libraries loaded and has computed nothing yet. A worker is a daemon, which
    multiprocessing lets have no children."""
    ours, theirs = Pipe()
    with warnings.catch_warnings():  # of Python 3.12: the worker's other thread only waits for its parent's end
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            for connection in (ours, *(other.connection for other in others)):
                connection.close()  # held on to, it would keep the others from seeing the worker's end
            take_part(errand, job, rank, n_ranks, meeting, theirs)
        finally:
            os._exit(0)
    theirs.close()
    return Rank(pid, ours)


def _outcome(ranks: list[Rank], progress: Callable[..., None]) -> tuple[str, Any]:
    """What rank 0 came to, or the cause that ended a process before."""
    open_to = {each.connection: rank for rank, each in enumerate(ranks)}
    ended: dict[str, Any] = {}
    deadline: float | None = None
    while open_to and (deadline is None or time.monotonic() < deadline):
        for connection in wait(list(open_to), None if deadline is None else max(0.0, deadline - time.monotonic())):
            assert isinstance(connection, Connection)
            rank = open_to[connection]
            try:
                kind, *values = connection.recv()
            except (EOFError, OSError):
                del open_to[connection]
                kind, values = "lost", [_how_it_ended(ranks[rank].wait(), rank, len(ranks))]
            if kind == "progress":
                progress(*values)
                continue
            open_to.pop(connection, None)
            if kind == "result" and rank == 0:
                return "result", values[0]
            if kind != "result":
                ended.setdefault(kind, values[0])
                deadline = deadline or time.monotonic() + GRACE_SECONDS
    kind = next(kind for kind in CAUSES if kind in ended)
    return kind, ended[kind]


def _how_it_ended(code: int, rank: int, n_ranks: int) -> str:
    how = f"ended with code {code}"
    if code < 0:
        how = f"was ended by signal {-code} ({signal.Signals(-code).name})"
    hint = "; the system does that when memory runs out" if code == -signal.SIGKILL else ""
    return f"process {rank + 1} of the {n_ranks} that shared this run {how} before the run was over{hint}"
