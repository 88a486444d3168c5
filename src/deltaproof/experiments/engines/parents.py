"""Processes that do not outlive the one that started them."""

import os
from multiprocessing.connection import Connection


def die_with_parent(connection: Connection) -> None:
    """End this process as soon as the one at the other end is gone."""
    try:
        connection.recv()  # the parent never sends: this returns when it is gone
    except (EOFError, OSError):
        os._exit(1)
