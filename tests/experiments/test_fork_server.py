"""The fork server is started before this process loads torch, and only where something will run."""

import subprocess
import sys
from pathlib import Path

import pytest

from deltaproof.experiments.engines import fork_server
from deltaproof.experiments.engines.fork_server import will_be_needed

PLAN = {"model": "minilm", "data": "demo", "methods": "full,lora"}


def in_a_process_of_its_own(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()


def test_it_runs_before_torch_is_loaded_and_ends_at_once_where_a_setting_is_wrong() -> None:
    script = """
import sys
from deltaproof.experiments.compare import settle
from deltaproof.experiments.engines import fork_server

fork_server.PRELOAD = "json"  # quick to load
fork_server.available_cores = lambda: 2
seen = []
start = fork_server.start
fork_server.start = lambda: (seen.append("torch" in sys.modules), start())
for methods in ("lorra", "lora"):
    try:
        settle(None, None, {"model": "minilm", "data": "demo", "methods": methods})
    except Exception as error:
        print(type(error).__name__)
    print(seen, fork_server.is_running())
    seen.clear()
fork_server.end()
print(fork_server.is_running())
"""
    assert in_a_process_of_its_own(script).splitlines() == [
        "ConfigError",
        "[False] False",
        "[True] True",  # the second time torch is there
        "False",
    ]


def test_nothing_is_started_for_what_cannot_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fork_server, "available_cores", lambda: 2)
    (tmp_path / "there.csv").touch()
    assert will_be_needed(PLAN)
    assert will_be_needed({**PLAN, "data": str(tmp_path / "there.csv"), "engine": "auto"})
    assert not will_be_needed({**PLAN, "data": str(tmp_path / "not_there.csv")})
    assert not will_be_needed({**PLAN, "engine": "ray"})
    assert not will_be_needed({"model": "minilm", "data": "demo"})


def test_on_one_core_it_waits_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_server, "available_cores", lambda: 1)
    assert not will_be_needed(PLAN)
