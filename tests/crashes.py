"""Experiments in processes of their own, to be killed."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

LAUNCH = "import sys, json, deltaproof; deltaproof.compare(**json.loads(sys.argv[1]))"
PATIENCE_SECONDS = 90


def launch(plan: dict[str, Any]) -> subprocess.Popen:
    """An experiment in a process group of its own."""
    import json

    return subprocess.Popen(
        [sys.executable, "-c", LAUNCH, json.dumps(plan)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
        start_new_session=True,
    )


def wait_until(happened: Callable[[], Any], process: subprocess.Popen | None = None) -> Any:
    """What `happened` returns once it is true; fails if the process ends before."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := happened()):
        assert process is None or process.poll() is None, f"the experiment ended first: {process.communicate()}"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.002)
    return found


def kill(process: subprocess.Popen) -> None:
    """`kill -9` the main process; all of its helpers must be gone in a moment, by themselves."""
    try:
        helpers = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        helpers = []
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(helpers, timeout=20)
    assert not alive, f"still alive: {[helper.cmdline() for helper in alive]}"


def workers(pid: int) -> list[psutil.Process]:
    """The processes that runs of an experiment in the process `pid` are in: children of its fork server."""
    try:
        return [worker for server in psutil.Process(pid).children() for worker in server.children()]
    except psutil.NoSuchProcess:
        return []


def n_files(folder: Path, pattern: str) -> int:
    return len(list(folder.glob(pattern)))
