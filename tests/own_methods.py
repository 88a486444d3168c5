"""Methods of a user's own, in the user's own module: each ends in a way of its own."""

import os
import signal
from collections.abc import Iterator

import torch

from deltaproof import Full, method
from deltaproof.methods.edits import Edit


class OutOfMemory(Edit):
    """Asks for more memory than there is."""

    def begin(self, n_steps: int) -> None:
        torch.empty(2**60, dtype=torch.uint8)


class Killed(Edit):
    """Is killed as the system kills when memory runs out: in every run, or the first time only."""

    def __init__(self, marker: str) -> None:
        super().__init__()
        self.marker = marker

    def begin(self, n_steps: int) -> None:
        if n_steps <= 3:  # a probe
            return
        if self.marker:
            if os.path.exists(self.marker):
                return
            open(self.marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)


class Broken(Edit):
    """Has a bug."""

    def begin(self, n_steps: int) -> None:
        if n_steps > 3:
            raise ZeroDivisionError("a bug of the method")


class _Plain(Full):
    def extra(self) -> Edit:
        return Edit()

    def edits(self, backbone) -> Iterator:
        yield from super().edits(backbone)
        yield None, self.extra()


@method("wild")
class Wild(_Plain):
    """Full fine-tuning at a learning rate that no model survives."""

    learning_rate = 1e30


@method("greedy")
class Greedy(_Plain):
    def extra(self) -> Edit:
        return OutOfMemory()


@method("killed")
class KilledMethod(_Plain):
    marker: str = ""

    def extra(self) -> Edit:
        return Killed(self.marker)


@method("broken")
class BrokenMethod(_Plain):
    def extra(self) -> Edit:
        return Broken()


class NotesThreads(Edit):
    """Writes down how many threads torch may use."""

    def __init__(self, marker: str) -> None:
        super().__init__()
        self.marker = marker

    def begin(self, n_steps: int) -> None:
        with open(self.marker, "a") as file:
            print(torch.get_num_threads(), file=file)


@method("threads")
class ThreadsMethod(_Plain):
    marker: str = ""

    def extra(self) -> Edit:
        return NotesThreads(self.marker)
