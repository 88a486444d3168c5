"""Being part of a Ray cluster: joining it, knowing its nodes, seeing that its head is still there, leaving it."""

import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from deltaproof.errors import DeltaproofError, MissingExtraError

CHECK_SECONDS = 5.0
"""The head node is knocked at this often while runs are under way."""
PATIENCE_SECONDS = 40.0
"""It may be silent for so long, as one that is restarted is. Ray itself ends the process after 60."""
CLIENT = "ray://"


class Membership:
    """This process as a driver of the cluster at an address; may be used from several threads."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._is_ours = self._is_lost = False
        self._checking = threading.Lock()
        self._next_check, self._silent_since = 0.0, 0.0

    def join(self) -> None:
        """Connect, unless this process is connected already.

        Raises:
            MissingExtraError: ray is not installed. DeltaproofError: no cluster answers at the address, or this machine
                is none of its nodes.
        """
        try:
            import ray
        except ImportError:
            raise MissingExtraError(
                "the engine `ray` needs the package `ray`, which is not installed; "
                "run `pip install 'deltaproof[cluster]'`, on every node too"
            ) from None
        if ray.is_initialized():
            return
        if self._address.startswith(CLIENT):
            raise DeltaproofError(
                f"the `address` must be that of the cluster's head node, `HOST:PORT`, got one of Ray's client, "
                f"`{self._address}`; call on a node of the cluster, with `--address HOST:6379` or none"
            )
        try:
            _knock(self._address)
            ray.init(address=self._address, log_to_driver=False, logging_level="ERROR")
        except (OSError, RuntimeError, ValueError) as error:
            raise DeltaproofError(
                f"a Ray cluster must answer at `{self._address}`, got {first_line(error)}; start one with "
                f"`ray start --head`, or give its `--address HOST:PORT`, on a machine that has joined it"
            ) from None
        self._is_ours = True
        _keep_off_stdout()

    def check(self) -> None:
        """Have a look at the head node now and then.

        Raises:
            DeltaproofError: it has been silent for too long. Ray ends this process, whatever it does, soon after.
        """
        import ray

        with self._checking:
            now = time.monotonic()
            if self._is_lost or now >= self._next_check:
                self._next_check = now + CHECK_SECONDS
                head = ray.get_runtime_context().gcs_address
                try:
                    _knock(head)
                    self._silent_since = 0.0
                except OSError as error:
                    self._silent_since = self._silent_since or now
                    self._is_lost = self._is_lost or now - self._silent_since >= PATIENCE_SECONDS
                    if self._is_lost:
                        raise DeltaproofError(
                            f"the cluster's head node must answer while runs are under way, `{head}` did not for "
                            f"{PATIENCE_SECONDS:.0f} s ({first_line(error)}); start the cluster again, then the same "
                            f"command goes on from here"
                        ) from None

    @property
    def is_lost(self) -> bool:
        """Whether the head node was given up: whatever asks the cluster anything would wait in vain."""
        return self._is_lost

    def leave(self) -> None:
        """Disconnect, if it was `join` that connected."""
        import ray

        if self._is_ours and not self._is_lost:
            ray.shutdown()


def nodes() -> list[dict[str, float]]:
    """The resources of every node that is alive."""
    import ray

    return [found["Resources"] for found in ray.nodes() if found["Alive"]]


def first_line(error: BaseException) -> str:
    """An error's name, and what it says first."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _knock(address: str) -> None:
    """Raise an OSError where nobody listens at `HOST:PORT`: Ray itself would go on asking for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _keep_off_stdout() -> None:
    """Ray prints what it has to say of lost workers and nodes to stdout, which is where a command's `--json` goes."""
    from ray._private import worker

    speak: Callable[..., None] | None = getattr(worker, "print_to_stdstream", None)
    if speak is None or hasattr(speak, "to_stderr"):
        return

    def to_stderr(data: Mapping[str, Any], *arguments: Any, **named: Any) -> None:
        speak({**data, "is_err": True}, *arguments, **named)

    to_stderr.to_stderr = True  # type: ignore[attr-defined]
    worker.print_to_stdstream = to_stderr
