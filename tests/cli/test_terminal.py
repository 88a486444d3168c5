"""What a person sees: on a terminal, in a pipe, and when she stops it."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import psutil
import pytest

from small import FAST_OPTIONS

COMMAND = [sys.executable, "-m", "deltaproof.cli.main"]


@pytest.fixture(scope="module")
def options(bert, reviews_csv):
    return ["compare", "--model", str(bert), "--data", str(reviews_csv), *FAST_OPTIONS, "--trials", "2", "--seeds", "2"]


def listen_to_ctrl_c():
    """A terminal starts its commands so; tests that run in the background, under `nohup` say, ignore the signal, and a
    child would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class OnTerminal:
    """A command on a terminal of 100 columns; everything that it prints ends up in `shown`."""

    def __init__(self, arguments):
        ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
        self.process = subprocess.Popen(
            [*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
            preexec_fn=listen_to_ctrl_c,
        )  # fmt: skip
        os.close(theirs)
        self.terminal, self.shown = ours, ""

    def read_until(self, text=None, seconds=90):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and (text is None or text not in self.shown):
            if not select.select([self.terminal], [], [], 0.5)[0]:
                continue
            try:
                self.shown += os.read(self.terminal, 65536).decode(errors="replace")
            except OSError:  # the other end is closed
                break
        return self.shown


def plain(text):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")


def test_on_a_terminal_bars_with_the_time_left_come_and_go(options, tmp_path):
    longer = ["--epochs", "4"]  # a training that is over at once may show no bar
    run = OnTerminal([*options, *longer, "--methods", "lora(rank=2),head", "--out", str(tmp_path / "run")])
    shown = run.read_until()
    assert run.process.wait(20) == 0
    text = plain(shown)
    assert re.search(r"whole experiment +\S+ .* left", text)
    assert re.search(r"lora\(rank=2\), learning rate \S+ +\S+ .* left", text)
    for seed in (0, 1):
        assert len(re.findall(rf"^head, seed {seed}: test accuracy", text, re.MULTILINE)) == 1
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") > 0  # the cursor is back
    assert text.count("in all about") == 1
    last = text[text.rindex("trainings took") :]
    assert "whole experiment" not in last
    assert "report: " in last


def test_in_a_pipe_lines_are_whole_and_plain(options, tmp_path):
    folder = tmp_path / ("a-long-name-" * 12)
    done = subprocess.run(
        [*COMMAND, *options, "--methods", "head", "--out", str(folder)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    assert "\x1b" not in done.stderr + done.stdout
    assert f"report: {folder / 'report.html'}" in done.stderr.splitlines()
    note = next(line for line in done.stderr.splitlines() if line.startswith("note"))
    assert note.endswith(("overrides", "split"))
    assert any(line.split()[:1] == ["method"] for line in done.stdout.splitlines()[:2])


def test_ctrl_c_ends_at_once_with_130_one_line_and_nothing_left_running(options, tmp_path):
    run = OnTerminal([*options, "--methods", "full,lora(rank=2)", "--epochs", "500", "--out", str(tmp_path / "run")])
    run.read_until("left")
    helpers = psutil.Process(run.process.pid).children(recursive=True)
    os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does: to the whole group, helpers included
    shown = plain(run.read_until())
    assert run.process.wait(60) == 130  # at once, but for a machine that does much else
    assert shown.count("stopped; the same command goes on from here") == 1
    assert "Traceback" not in shown
    assert "Error" not in shown
    assert not psutil.wait_procs(helpers, timeout=20)[1]
