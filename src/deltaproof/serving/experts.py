"""Many experts over one base in memory, with hot switching."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from deltaproof.errors import ConfigError, nearest
from deltaproof.evaluation.predict import predict
from deltaproof.experiments.answer import said
from deltaproof.serving.cache import Cache
from deltaproof.serving.held import Form, Held, read_expert
from deltaproof.serving.listing import Signature, experts_in, files_of, signature_of
from deltaproof.serving.seats import Seat, seat_for
from deltaproof.serving.shared import SharedBase
from deltaproof.training.precision import pick_device

Text = str | tuple[str, str]


class Experts:
    """Serve experts by name: `.dpz` files, PEFT adapters and tuned models, all of one base.

    The base's weights are read once and never written. Of the experts a cache holds those that were used last,
    compressed ones in two bits a value; those that answer stand decoded in a seat, one seat for all experts of one
    form (method, settings, number of outputs), where switching points parameters at other tensors.

    A model that `use` returns answers as that expert until an expert of the same form is used. Threads may call
    `predict` and `using` as they like: they take turns. `use` alone is for one thread.

    >>> experts = Experts("minilm", "experts/")            # doctest: +SKIP
    >>> experts.predict("reviews", ["a good film"])        # doctest: +SKIP
    [{'label': 'pos', 'probabilities': {'neg': 0.03, 'pos': 0.97}}]
    """

    def __init__(
        self, base: str, experts: str | Path | Mapping[str, str | Path], *, cache_bytes: int = 256 * 2**20,
        seats: int = 4, device: str = "cpu", trust_remote_code: bool = False,
    ) -> None:  # fmt: skip
        """
        Args:
            base: the model that all experts were tuned on: a folder, an alias or a hub id.
            experts: a folder of experts, or their places by name. A folder is looked through anew when a name is not
                known, and an expert whose file has changed is read anew.
            cache_bytes: most bytes that experts may take in memory beside those that sit.
            seats: how many forms may stand ready at a time; each holds one expert decoded.
            device: such as `cuda`; `auto` takes what there is.
        Raises:
            BackboneError: the base cannot be read. RecordError: there is no such folder.
            ConfigError: a setting is out of its range, or two experts have one name.
        """
        if cache_bytes < 0 or seats < 1:
            raise ConfigError(
                f"`cache_bytes >= 0` and `seats >= 1` must hold, got {cache_bytes} and {seats}; leave them out for the "
                f"defaults"
            )
        self._place = experts if isinstance(experts, Mapping) else Path(experts)
        self._paths = experts_in(self._place)
        self.base = SharedBase(base, pick_device(device), trust_remote_code)
        self._cache = Cache[tuple[Signature, Held]](cache_bytes)
        self._seats: OrderedDict[Form, Seat] = OrderedDict()
        self._most_seats = seats
        self._lock = threading.RLock()

    @property
    def names(self) -> list[str]:
        """The experts that are there, in alphabetical order."""
        with self._lock:
            self._paths = experts_in(self._place)
            return sorted(self._paths)

    @property
    def cached(self) -> dict[str, int]:
        """Experts in the cache with their bytes, the one used longest ago first."""
        with self._lock:
            return self._cache.sizes

    @property
    def sitting(self) -> list[str]:
        """Experts that stand decoded, the one used last at the end."""
        with self._lock:
            return [seat.sitting[0] for seat in self._seats.values() if seat.sitting]

    def use(self, name: str) -> nn.Module:
        """The model that answers as this expert, `model(**batch).logits`, until another of the same form is used.

        What fails, fails before anything is switched: who sat there answers on.

        Raises:
            ConfigError: there is no such expert, or it cannot be served.
            RecordError: it is of another base. CorruptFileError: its file is damaged.
        """
        with self._lock:
            return self._seat(name)[0].model

    @contextmanager
    def using(self, name: str) -> Iterator[nn.Module]:
        """The same for a block of code, during which no other thread can switch."""
        with self._lock:
            yield self.use(name)

    def predict(self, name: str, texts: Sequence[Text], batch_size: int = 64) -> list[dict[str, Any]]:
        """What an expert says of each text, or pair of texts, in their order.

        Returns:
            `label` and `probabilities` by label; of several labels those that hold; of a regression its `value`.
        Raises:
            ConfigError: what was given is no list of texts; else as `use`.
        """
        if isinstance(texts, str) or not all(_is_text(text) for text in texts):
            raise ConfigError(f"texts must be a list of texts or of pairs of them, got {texts!r:.60}; write `[text]`")
        with self._lock:
            seat, held = self._seat(name)
            parts = [(text,) if isinstance(text, str) else tuple(text) for text in texts]
            if not parts:
                return []
            tokenizer = self.base.tokenizer
            encoded = held.task.encode_texts(tokenizer, parts)
            outputs = predict(seat.model, held.task, encoded, tokenizer.pad_token_id, batch_size)
            return [said(held.task, output) for output in outputs]

    def _seat(self, name: str) -> tuple[Seat, Held]:
        """The seat with this expert in it."""
        signature, held = self._held(name)
        seat = self._seats.get(held.form)
        if seat is None or not seat.fits(held):
            seat = seat_for(self.base, held)
        if seat.sitting != (name, signature, held):
            seat.sit(seat.tensors(held), held.task)
            seat.sitting = (name, signature, held)
        self._seats[held.form] = seat
        self._seats.move_to_end(held.form)
        while len(self._seats) > self._most_seats:
            self._seats.popitem(last=False)
        return seat, held

    def _held(self, name: str) -> tuple[Signature, Held]:
        """The expert from the cache or its seat, or read anew where it is in neither or its files have changed."""
        known = self._cache.get(name)
        if known is None:  # such as a whole model that is larger than the cache
            sitting = [seat.sitting for seat in self._seats.values() if seat.sitting and seat.sitting[0] == name]
            known = sitting[0][1:] if sitting else None
        if known is not None and signature_of([file for file, _, _ in known[0]]) == known[0]:
            return known
        path = self._path(name)
        signature = signature_of(files_of(path))
        held = read_expert(path, self.base)
        self._cache.put(name, (signature, held), held.n_bytes)
        return signature, held

    def _path(self, name: str) -> Path:
        if name not in self._paths:
            self._paths = experts_in(self._place)
        if name not in self._paths:
            raise ConfigError(f"`{name}` must be one of the {len(self._paths)} experts; {_near(name, self._paths)}")
        return self._paths[name]


def _is_text(given: Any) -> bool:
    return isinstance(given, str) or (isinstance(given, tuple | list) and all(isinstance(one, str) for one in given))


def _near(name: str, known: Mapping[str, Path]) -> str:
    """The near names; of many experts none of which is near, a few."""
    found = nearest(name, known)
    return found if len(known) <= 20 or found.startswith("did") else f"some are {', '.join(sorted(known)[:5])}"
