"""A user's script that registers methods, read by a worker up to where it would start an experiment."""

import runpy


class DefinitionsRead(BaseException):
    """Ends a script that a worker reads for its methods, at the point where it would start an experiment."""


_is_reading = False


def stop_if_reading() -> None:
    """Called where an experiment starts: a script without a guard for `__main__` comes here in every worker."""
    if _is_reading:
        raise DefinitionsRead


def read_script(path: str) -> None:
    """Run the user's script up to the point where it starts an experiment."""
    global _is_reading
    _is_reading = True
    try:
        runpy.run_path(path, run_name="__mp_main__")
    except DefinitionsRead:
        pass
    finally:
        _is_reading = False
