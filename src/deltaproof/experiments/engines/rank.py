"""One of the processes that share a run. All compute the same; the one of rank 0 writes what the run leaves."""

import threading
import traceback
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from deltaproof.errors import DeltaproofError
from deltaproof.experiments.engines.parents import die_with_parent
from deltaproof.experiments.jobs import Job


def take_part(errand: str, job: Job, rank: int, n_ranks: int, meeting: Path, connection: Connection) -> None:
    """Do this process's part of an errand, and send what became of it. Dies with the worker at the other end."""
    threading.Thread(target=die_with_parent, args=(connection,), daemon=True).start()
    try:
        connection.send(("result", _do(errand, job, rank, n_ranks, meeting, connection)))
    except DeltaproofError as error:
        connection.send(("user_error", error))
    except BaseException as error:
        from deltaproof.memory import is_out_of_memory  # brings torch: not for those who only start such processes

        kind = "out_of_memory" if is_out_of_memory(error) else "error"
        text = str(error).splitlines()[0] if kind == "out_of_memory" else traceback.format_exc(limit=12)
        connection.send((kind, text))


def _do(errand: str, job: Job, rank: int, n_ranks: int, meeting: Path, connection: Connection) -> Any:
    from deltaproof.experiments.probe import probe
    from deltaproof.experiments.run import run, run_beside
    from deltaproof.training.precision import pick_device
    from deltaproof.training.sharding import join_group

    if pick_device(job.device).type == "cuda":
        job = replace(job, device=f"cuda:{rank}")
    join_group(rank, n_ranks, meeting, pick_device(job.device))
    if errand == "probe":
        return probe(job)
    if rank > 0:
        return run_beside(job)
    return run(job, lambda *values: connection.send(("progress", *values)))
