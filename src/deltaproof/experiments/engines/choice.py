"""Engines by name; each is imported when it is chosen."""

from collections.abc import Callable

from deltaproof.errors import ConfigError
from deltaproof.experiments.engines.engine import Engine, Say
from deltaproof.registry import Registry

ENGINES: Registry[Callable[[str | None, Say, int | None], Engine]] = Registry("engine")
"""Name to what makes the engine, from the plan's `address`, someone to tell, and the plan's `memory`."""


@ENGINES.add("local")
def _local(address: str | None, say: Say, memory: int | None) -> Engine:
    from deltaproof.experiments.engines.local import LocalEngine

    _check_no_address("local", address)
    return LocalEngine(memory=memory)


@ENGINES.add("ray")
def _ray(address: str | None, say: Say, memory: int | None) -> Engine:
    from deltaproof.experiments.engines.cluster import RayEngine

    return RayEngine(address, say, memory)


@ENGINES.add("lanes")
def _lanes(address: str | None, say: Say, memory: int | None) -> Engine:
    from deltaproof.experiments.engines.lanes import LanesEngine

    _check_no_address("lanes", address)
    return LanesEngine(may_decline=False, say=say, memory=memory)


@ENGINES.add("auto")
def _auto(address: str | None, say: Say, memory: int | None) -> Engine:
    from deltaproof.experiments.engines.lanes import LanesEngine

    _check_no_address("auto", address)
    return LanesEngine(may_decline=True, say=say, memory=memory)


def _check_no_address(name: str, address: str | None) -> None:
    if address is not None:
        raise ConfigError(f"`address` goes with an engine on a cluster, got `{address}` for `{name}`; leave it out")


def engine_named(
    name: str, address: str | None = None, say: Say = lambda text: None, memory: int | None = None
) -> Engine:
    """The engine of a plan, not yet started.

    Raises:
        ConfigError: no engine of that name, or one that takes no address got one.
    """
    return ENGINES[name](address, say, memory)
