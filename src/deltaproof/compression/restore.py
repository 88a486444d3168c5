"""From a compressed update back to tensors, and from a file to a folder that can be used."""

import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deltaproof.backbones.source import Source as ModelFiles
from deltaproof.backbones.source import find_source
from deltaproof.compression.container import Compressed, read_compressed
from deltaproof.compression.entries import Entry, Rows, Ternary, Whole
from deltaproof.compression.peft_source import CONFIG, TENSORS
from deltaproof.compression.source import DTYPES, tensor_bytes, tensor_of
from deltaproof.errors import ConfigError, CorruptFileError, RecordError
from deltaproof.methods.tuned import Tuned
from deltaproof.records.spec import Spec
from deltaproof.records.store import write_json
from deltaproof.saving.folder import FACTS, attach_anew, save_tuned
from deltaproof.saving.streaming import write_tensors
from deltaproof.tasks.text import TextTask
from deltaproof.theory.checkpoints import Checkpoint, open_model
from deltaproof.theory.deltas import common_prefix
from deltaproof.theory.skeleton import Skeleton

_TOKENIZER_FILES = (
    "tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model", "bpe.codes",
)  # fmt: skip
Starts = Callable[[str], Tensor]
"""Start values of a tensor by its name, for the kinds `init` and `base`, and the base's tensor under changed rows."""


def restored(entry: Entry, starts: Starts) -> Tensor:
    """A tensor of the update as it is used: start + scale * signs in fp32, rounded to its type once.

    Raises:
        RecordError: the start values are not those that the change was counted from.
        CorruptFileError: the code is damaged.
    """
    if isinstance(entry, Whole):
        return tensor_of(entry.payload, entry.dtype, entry.shape)
    if isinstance(entry, Rows):
        return _with_rows(entry, starts(entry.name))
    assert isinstance(entry, Ternary)
    change = torch.from_numpy(entry.signs() * np.float32(entry.scale)).reshape(entry.shape)
    if entry.start == "zero":
        return change.to(DTYPES[entry.dtype])
    if entry.start == "one":
        return (change + 1).to(DTYPES[entry.dtype])
    start = starts(entry.name).detach().cpu()
    check_start(entry, start)
    return (start.float() + change).to(DTYPES[entry.dtype])


def _with_rows(entry: Rows, base: Tensor) -> Tensor:
    if tuple(base.shape) != entry.shape or base.dtype != DTYPES[entry.dtype]:
        raise RecordError(_other_start(entry, f"it has the shape {list(base.shape)} and type {base.dtype} there"))
    where, values = entry.rows()
    data = np.frombuffer(tensor_bytes(base), np.uint8).reshape(entry.shape[0], -1).copy()
    data[where] = values
    return tensor_of(data.tobytes(), entry.dtype, entry.shape)


def check_start(entry: Ternary, start: Tensor) -> None:
    """Whether these are the values that a change was counted from.

    Raises:
        RecordError: they are not.
    """
    if tuple(start.shape) != entry.shape:
        raise RecordError(_other_start(entry, f"it has the shape {list(start.shape)} there"))
    if entry.start_crc is not None and zlib.crc32(tensor_bytes(start)) != entry.start_crc:
        raise RecordError(_other_start(entry, "its start values came out otherwise here"))


def _other_start(entry: Entry, found: str) -> str:
    return (
        f"the start of `{entry.name}` must be the one that its change was counted from, {found}; use the base model, "
        f"the "
        f"start and the versions it was compressed with, or compress with `--start zero`"
    )


def load_compressed(
    path: Path, trust_remote_code: bool = False, base: str | None = None
) -> tuple[Tuned, TextTask, dict[str, Any]]:
    """A tuned model straight from its file, its task and its spec, as `load_tuned` gives them from a folder.

    Args:
        base: where the model that was tuned lies now, if not where it did then.
    Raises:
        RecordError: the base is another model. ConfigError: the file holds no tuned model of deltaproof.
    """
    compressed = read_compressed(path)
    facts = compressed.facts
    check_facts(facts, path)
    if facts.get("spec") is None:
        raise ConfigError(
            f"only tuned models of `train` and `compare` are loaded with their task, `{path}` holds an adapter or "
            f"model "
            f"of elsewhere; write its folder with `deltaproof decompress` and load that"
        )
    task, spec = TextTask.from_json(facts["task"]), dict(facts["spec"])
    tuned = attach_anew(task, spec, trust_remote_code, base, what=f"`{path}`")
    if facts["holds"] == "model":
        base_of = _base_of(compressed, base, path)
        parameters = {**dict(tuned.backbone.model.named_parameters()), **dict(tuned.backbone.model.named_buffers())}
        with torch.no_grad():
            for name, entry in compressed.entries.items():
                parameters[name].copy_(restored(entry, base_of))
    else:
        first = {name: tensor.clone() for name, tensor in tuned.state().items()}
        tuned.load_state({name: restored(entry, first.__getitem__) for name, entry in _known(compressed, first, path)})
    return tuned.eval(), task, spec


def decompress(
    path: Path, out: Path, trust_remote_code: bool = False, base: str | None = None, initial: Path | None = None
) -> None:
    """Write what the file holds as a folder: a PEFT adapter, a `transformers` model, or a tuned model of deltaproof.

    Args:
        base: where the base model lies now.
        initial: of a PEFT adapter that was compressed against its start: the folder with that start.
    """
    compressed = read_compressed(path)
    check_facts(compressed.facts, path)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"`--out` must name a new folder or an empty one, `{out}` is neither; choose another")
    holds = compressed.facts["holds"]
    if holds == "tuned":
        tuned, task, spec = load_compressed(path, trust_remote_code, base)
        save_tuned(tuned, task, Spec(**spec), out)
    elif holds == "peft":
        _write_adapter(compressed, out, initial, path)
    else:
        _write_model(compressed, out, base, path)


def check_facts(facts: dict[str, Any], path: Path) -> None:
    """Whether the file says what its tensors are, whoever wrote it.

    Raises:
        CorruptFileError: it does not.
    """
    try:
        holds, base = facts["holds"], facts["base"]
        if holds not in ("tuned", "peft", "model") or not isinstance(base["name"], str):
            raise ValueError(f"holds {holds!r}, base {base!r}")
        if holds != "tuned" and not isinstance(facts["config"], dict):
            raise TypeError("no configuration")
        if holds == "model" and not isinstance(base["fingerprint"], str):
            raise TypeError("no fingerprint of the base")
        if holds == "tuned" or facts.get("spec") is not None:
            TextTask.from_json(facts["task"])
            Spec(**facts["spec"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptFileError(f"`{path}` must say what it holds, got {error!r}; compress anew") from None


def _known(compressed: Compressed, own: dict[str, Tensor], path: Path) -> Iterator[tuple[str, Entry]]:
    """The entries, whose names must be those of the method's own tensors."""
    if different := sorted(compressed.entries.keys() ^ own.keys()):
        raise ConfigError(
            f"`{path}` must hold the tensors that its method trains, these differ: {different[:4]}; use the version of "
            f"deltaproof that wrote it"
        )
    yield from compressed.entries.items()


def _base_of(compressed: Compressed, base: str | None, path: Path) -> Starts:
    """The base model's tensors by the tuned model's names."""
    files = base_files(compressed, base, path)
    return base_starts(open_model(str(files.folder)), compressed.entries, f"`{path}`")


def base_starts(checkpoint: Checkpoint, names: Iterable[str], what: str) -> Starts:
    """The tensors of a base by the names of a whole model that was compressed against it."""
    short = Skeleton(common_prefix(checkpoint, names)).short
    there = {short(name): name for name in checkpoint}

    def of(name: str) -> Tensor:
        if short(name) not in there:
            raise RecordError(f"the base of {what} must have a tensor `{name}`, it has none; name its true base")
        return checkpoint[there[short(name)]]

    return of


def base_files(compressed: Compressed, base: str | None, path: Path) -> ModelFiles:
    """The base model that a whole model was compressed against.

    Raises:
        RecordError: another one lies there.
    """
    facts = compressed.facts["base"]
    files = find_source(base or facts["name"], None if base else facts.get("revision") or None)
    if (found := files.fingerprint()) != facts["fingerprint"]:
        raise RecordError(
            f"the base must be the model that `{path}` was compressed against, `{facts['name']}` with fingerprint "
            f"{facts['fingerprint']}, got {found}; bring that model back, the changes fit no other"
        )
    return files


def _write_adapter(compressed: Compressed, out: Path, initial: Path | None, path: Path) -> None:
    first: dict[str, Tensor] | Checkpoint = {}
    if initial is not None:
        first = Checkpoint(initial, [initial / TENSORS])

    def starts(name: str) -> Tensor:
        if name not in first:
            raise ConfigError(
                f"`{path}` was compressed against the adapter's start, which lacks `{name}` here; name its folder with "
                f"`--initial`"
            )
        return first[name]

    _write(compressed, starts, out / TENSORS)
    write_json(out / CONFIG, compressed.facts["config"])


def _write_model(compressed: Compressed, out: Path, base: str | None, path: Path) -> None:
    facts = compressed.facts
    files, starts = base_files(compressed, base, path), _base_of(compressed, base, path)
    _write(compressed, starts, out / "model.safetensors")
    for file in sorted(path for pattern in _TOKENIZER_FILES for path in files.folder.glob(pattern)):
        shutil.copyfile(file, out / file.name)
    write_json(out / "config.json", facts["config"])
    if facts.get("spec") is not None:
        write_json(out / FACTS, {"format": 1, "spec": facts["spec"], "task": facts["task"]})


def _write(compressed: Compressed, starts: Starts, path: Path) -> None:
    layout = [(entry.name, entry.dtype, entry.shape, entry.dense_bytes) for entry in compressed.entries.values()]
    contents = (tensor_bytes(restored(entry, starts)) for entry in compressed.entries.values())
    write_tensors(path, layout, contents, {"format": "pt"})
