"""Changes of weights, one tensor at a time, and those between two checkpoints."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from deltaproof.backbones.sites import Site
from deltaproof.errors import BackboneError
from deltaproof.theory.checkpoints import Checkpoint, as_float
from deltaproof.theory.skeleton import Skeleton


@dataclass(frozen=True, eq=False)
class Delta:
    """The change of one weight: W0 and D = W1 - W0, both (d_out, d_in), or (d,) for a bias or the gain of a norm."""

    name: str
    """The tensor's name below the base model, with the role in brackets where roles share it."""
    role: str | None
    """None where no site of the model has this tensor."""
    layer: int | None
    base: Tensor
    change: Tensor
    factors: tuple[Tensor, Tensor] | None = None
    """A (r, d_in) and B (d_out, r) with D = B A, where D has that form."""
    stored_as: torch.dtype | None = None
    """In which type W1 is stored; None for a change that is kept beside W0."""

    @property
    def is_matrix(self) -> bool:
        return self.change.ndim == 2


@dataclass(frozen=True)
class Deltas(Mapping[str, Delta]):
    """Every change by name, in the model's order. Each is read or reckoned when it is asked for, and not kept."""

    loaders: dict[str, Callable[[], Delta]]
    notes: list[str] = field(default_factory=list)
    """What stands on one side only, or cannot be compared."""

    def __getitem__(self, name: str) -> Delta:
        return self.loaders[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.loaders, key=natural_order))

    def __len__(self) -> int:
        return len(self.loaders)


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """A key that puts layer 2 before layer 10.

    >>> sorted(["layer.10", "layer.2"], key=natural_order)
    ['layer.2', 'layer.10']
    """
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def parts_of(name: str, skeleton: Skeleton) -> list[tuple[str, Site | None]]:
    """The names under which a tensor is reported, with their sites: one per role where roles share the tensor."""
    sites = skeleton.sites_of(name)
    return [(f"{name}[{site.role}]" if site.rows else name, site) for site in sites] or [(name, None)]


def part(tensor: Tensor, site: Site | None) -> Tensor:
    """A site's rows of a stored weight or bias, weights as (d_out, d_in); without a site the tensor as a matrix."""
    if tensor.ndim > 2:
        tensor = tensor.flatten(1)
    if site is not None and site.transposed and tensor.ndim == 2:
        tensor = tensor.mT
    return tensor if site is None or site.rows is None else tensor[site.rows[0] : site.rows[1]]


def between(base: Checkpoint, tuned: Checkpoint, skeleton: Skeleton | None = None) -> Deltas:
    """The changes from one checkpoint to another of the same architecture, two tensors in memory at a time.

    Args:
        skeleton: roles by name; without it no role is known.
    Raises:
        BackboneError: the two are not of one architecture.
    """
    skeleton = skeleton or Skeleton(common_prefix(base, tuned))
    before = {skeleton.short(name): name for name in base if base.is_float(name)}
    after = {skeleton.short(name): name for name in tuned if tuned.is_float(name)}
    shared = sorted(before.keys() & after.keys(), key=natural_order)
    resized = {name for name in shared if base.shape(before[name]) != tuned.shape(after[name])}
    _check_one_architecture(base, tuned, before, after, resized, skeleton)
    tied = _tied(base, tuned, [name for name in shared if name not in resized], before, after, skeleton)
    notes = [
        *_only_in("the tuned model", after.keys() - before.keys(), "new there"),
        *_only_in("the base", before.keys() - after.keys(), "not in the tuned model"),
        *_resized(base, tuned, resized, before, after),
        *(f"`{name}` is the token embedding once more, and counted once" for name in sorted(tied)),
    ]

    def loader(name: str, own: str, site: Site | None) -> Callable[[], Delta]:
        def load() -> Delta:
            first, second = part(base[before[name]], site), part(tuned[after[name]], site)
            role, layer = (site.role, site.layer) if site else (None, None)
            change = as_float(second) - as_float(first)
            return Delta(own, role, layer, as_float(first), change, stored_as=second.dtype)

        return load

    compared = [name for name in shared if name not in resized and name not in tied]
    loaders = {own: loader(name, own, site) for name in compared for own, site in parts_of(name, skeleton)}
    return Deltas(loaders, notes)


def common_prefix(base: Iterable[str], tuned: Iterable[str]) -> str:
    """The first part of names, such as `bert`, without which the most names are the same on both sides."""
    first, second = set(base), set(tuned)
    starts = sorted({name.partition(".")[0] for name in first | second})

    def n_shared(prefix: str) -> int:
        return len({name.removeprefix(prefix) for name in first} & {name.removeprefix(prefix) for name in second})

    best = max(starts, key=lambda start: n_shared(f"{start}."), default="")
    return best if best and n_shared(f"{best}.") > n_shared("") else ""


def _check_one_architecture(
    base: Checkpoint, tuned: Checkpoint, before: dict[str, str], after: dict[str, str], resized: set[str],
    skeleton: Skeleton,
) -> None:  # fmt: skip
    n_alike = len(before.keys() & after.keys()) - len(resized)
    in_layers = sorted(
        name for name in resized if any(site.layer is not None for site in skeleton.sites_of(name))
    )  # fmt: skip
    if not in_layers and 2 * n_alike >= min(len(before), len(after)) and n_alike:
        return
    if in_layers:
        name = in_layers[0]
        shapes = f"{list(base.shape(before[name]))} and {list(tuned.shape(after[name]))}"
        found = f"`{name}` has the shapes {shapes}"
    else:
        found = f"{n_alike} of {len(before)} and {len(after)} tensors have one name and shape"
    raise BackboneError(
        f"base and tuned model must be of one architecture, in `{base.folder}` and `{tuned.folder}` {found}; "
        f"name the model that was tuned, unquantised"
    )


def _tied(
    base: Checkpoint, tuned: Checkpoint, shared: list[str], before: dict[str, str], after: dict[str, str],
    skeleton: Skeleton,
) -> set[str]:  # fmt: skip
    """Tensors that repeat an embedding on both sides: output layers tied to it, stored twice."""
    embeddings = [name for name in shared if any(site.role == "embedding" for site in skeleton.sites_of(name))]
    found = set()
    for embedding in embeddings:
        shape = tuned.shape(after[embedding])
        for name in shared:
            if skeleton.sites_of(name) or tuned.shape(after[name]) != shape:
                continue
            is_same = torch.equal(tuned[after[name]], tuned[after[embedding]])
            if is_same and torch.equal(base[before[name]], base[before[embedding]]):
                found.add(name)
    return found


def _only_in(where: str, names: set[str], meaning: str) -> list[str]:
    if not names:
        return []
    some = ", ".join(f"`{name}`" for name in sorted(names, key=natural_order)[:4])
    return [f"{len(names)} tensor(s) only in {where}, {meaning}: {some}{' …' if len(names) > 4 else ''}"]


def _resized(
    base: Checkpoint, tuned: Checkpoint, names: set[str], before: dict[str, str], after: dict[str, str]
) -> Iterator[str]:
    for name in sorted(names, key=natural_order):
        shapes = f"{list(base.shape(before[name]))} against {list(tuned.shape(after[name]))}"
        yield f"`{name}` has another shape in the tuned model, {shapes}, and is left out"
