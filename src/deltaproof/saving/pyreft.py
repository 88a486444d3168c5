"""Edits that the authors' library for ReFT, pyreft, has saved, as a method of ours with its values.

Their folder holds `config.json` and, per edit, one file `intkey_….bin` in PyTorch's own format, which is a pickle. From
others we read safetensors and JSON alone; this is the one exception, since no such folder exists in another form. It
is narrow: `torch.load(weights_only=True)` knows a fixed list of functions that build tensors and refuses every other
name before anything is called; the file must be of the zip kind, uncompressed (the older kind is where that reader
once failed, CVE-2025-32434, and compression is how a small file becomes a large one); and what comes out must be
tensors of the names and shapes that the edit has.
"""

import pickle
import re
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deltaproof.backbones.backbone import Backbone
from deltaproof.errors import ConfigError, RecordError
from deltaproof.methods.base import Method, method_from
from deltaproof.methods.positions import Positions
from deltaproof.methods.tuned import place_names
from deltaproof.records.store import read_json

_KEY = re.compile(
    r"layer[_.](?P<layer>\d+)[_.]comp[_.](?P<place>[\w.\[\]]+?)[_.]unit[_.]pos[_.]nunit[_.]\d+#(?P<number>\d+)",
    re.ASCII,
)
_METHODS: dict[str, dict[str, Any]] = {
    "LoreftIntervention": {"name": "loreft"},
    "LoreftIntervention_IdentityInit": {"name": "loreft"},
    "NoreftIntervention": {"name": "loreft", "form": "unconstrained"},
    "NodireftIntervention": {"name": "direft"},
}
"""Our names for theirs; the others keep R as the inner state of a parametrisation, which they cannot load either."""
_SIZES = ("embed_dim", "interchange_dim")
"""Numbers that some versions put beside the values."""
_TOLERANCE = 5e-3
"""How far R^T R may be from I; values rounded to bf16 are 1e-3 away."""


def read_pyreft(
    folder: Path | str, backbone: Backbone, positions: str, act: str = "linear"
) -> tuple[Method, dict[str, Tensor]]:
    """A folder that pyreft's `save` wrote, as a method and the values of its edits.

        method, state = read_pyreft("their_folder", backbone, positions="f7+l7")
        tuned = attach(backbone, method)
        tuned.load_state({**tuned.state(), **state})

    Args:
        backbone: the model that the edits were trained on.
        positions: which tokens they edit, such as `f7+l7`, which their folder does not say. Beware: for its own data
            sets the library edits up to the last token but one of the prompt, the paper's scripts up to the last.
        act: their `act_fn`, which their folder does not say.
    Returns:
        the method, `tied` where there is one edit per layer, and tensors by the names of `Tuned.state()`.
    Raises:
        RecordError: a file is missing or holds something else.
        ConfigError: the edits do not fit `positions` or the model.
    """
    folder = Path(folder)
    kind, files = _read_config(folder)
    counts = {len(numbers) for numbers in files.values()}
    if len(counts) != 1 or not counts <= {1, 2} or any(sorted(n) != list(range(len(n))) for n in files.values()):
        raise RecordError(f"`{folder}` must hold one edit per layer, or two (first and last tokens), got {files}")
    tied = counts == {1}
    if not tied and len(Positions.parse(positions).parts) != 2:
        raise ConfigError(
            f"`{folder}` holds edits for first and for last tokens, got `positions={positions!r}`; write `fN+lM`"
        )
    values = {
        (layer, number): _values(_read_tensors(folder / name), kind, act, folder / name)
        for layer, numbers in files.items()
        for number, name in numbers.items()
    }
    ranks = {value["bias"].numel() for value in values.values()}
    if len(ranks) != 1:
        raise RecordError(f"the edits of `{folder}` must have one rank, got {sorted(ranks)}")
    fields = {"rank": ranks.pop(), "positions": positions, "tied": tied, "layers": sorted(files), "act": act}
    method = method_from({**_METHODS[kind], **fields})
    return method, _named(values, method, backbone)


def _named(values: dict[tuple[int, int], dict[str, Tensor]], method: Method, backbone: Backbone) -> dict[str, Tensor]:
    """The values by the names that they have in `Tuned.state()`."""
    state: dict[str, Tensor] = {}
    sites = [site for site, _ in method.edits(backbone)]
    for place, site in zip(place_names(sites), sites, strict=True):
        assert site is not None
        assert site.layer is not None, "layers are numbered"
        value = values[site.layer, int(place.rpartition("#")[2])]
        if (width := len(value["basis"])) != site.d_out:
            raise ConfigError(
                f"the edits must fit a model of width {site.d_out}, `{backbone.name}`, got edits of width {width}; "
                f"give the model that they were trained on"
            )
        state |= {f"{place}.{name}": tensor for name, tensor in value.items()}
    return state


def _read_config(folder: Path) -> tuple[str, dict[int, dict[int, str]]]:
    """The class of the edits, and the names of their files by layer and number."""
    config = read_json(folder / "config.json")
    keys = config.get("sorted_keys") if isinstance(config, dict) else None
    types = config.get("intervention_types") if isinstance(config, dict) else None
    if not (isinstance(keys, list) and isinstance(types, list) and keys and types):
        raise RecordError(
            f"`{folder / 'config.json'}` must hold `sorted_keys` and `intervention_types`, as pyreft's `save` writes "
            f"them, found other content; give the folder that `save` wrote"
        )
    kinds = {str(name).rstrip("'>").rpartition(".")[2] for name in types}
    if len(kinds) != 1 or not kinds <= _METHODS.keys():
        raise RecordError(
            f"the edits of `{folder}` must all be of one class out of {', '.join(_METHODS)}, got "
            f"{', '.join(sorted(kinds))}; of other classes R is not stored as a matrix, train them again here"
        )
    files: dict[int, dict[int, str]] = defaultdict(dict)
    for key in keys:
        match = _KEY.fullmatch(str(key))
        place = match and re.fullmatch(r"block_output|[\w.]+\[(\d+)\]\.output", match["place"], re.ASCII)
        if not match or not place:
            raise RecordError(
                f"`{folder / 'config.json'}` must name edits of layers' outputs by position, got `{key}`; "
                f"edits elsewhere cannot be read"
            )
        files[int(place[1] or match["layer"])][int(match["number"])] = f"intkey_{key}.bin"
    return kinds.pop(), dict(files)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """A dictionary of tensors in PyTorch's zip format, and nothing else."""
    try:
        with zipfile.ZipFile(path) as archive:
            is_plain = all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
        content = torch.load(path, map_location="cpu", weights_only=True) if is_plain else None
    except FileNotFoundError:
        raise RecordError(f"`{path}` must exist, `config.json` names it; give the whole folder") from None
    except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, ValueError, EOFError) as error:
        reason = str(error).strip().split("\n")[0]
        raise RecordError(
            f"`{path}` must hold tensors alone, in PyTorch's zip format, got: {reason}; it was not opened further"
        ) from None
    size = path.stat().st_size
    is_tensors = isinstance(content, dict) and all(
        isinstance(key, str)
        and type(value) is Tensor
        and value.layout == torch.strided
        and value.numel() * value.element_size() <= size  # no number is shown twice
        for key, value in content.items()
    )
    if not is_tensors:
        raise RecordError(f"`{path}` must hold a dictionary of names and tensors, uncompressed, got something else")
    return dict(content or {})


def _values(stored: dict[str, Tensor], kind: str, act: str, path: Path) -> dict[str, Tensor]:
    """Our `basis`, `w` and `bias` from theirs, in fp32."""
    stored = {name: tensor for name, tensor in stored.items() if name not in _SIZES}
    if kind.startswith("Loreft"):
        w, b, basis = _take(stored, ("weight", "bias", "rotate_layer"), path)
        _check_shapes(w, b, basis.mT, path)
        off = float((basis.mT @ basis - torch.eye(len(b))).abs().max())
        if not off <= _TOLERANCE:
            raise RecordError(
                f"`rotate_layer` must have orthonormal columns in `{path}`, they are off by {off:.2g}; weight decay "
                f"and resuming destroy R in that library: train the edit again"
            )
        return {"basis": basis, "w": w, "bias": b}
    bias = stored.pop("proj_layer.bias", None)
    w, b, w2 = _take(stored, ("learned_source.weight", "learned_source.bias", "proj_layer.weight"), path)
    _check_shapes(w, b, w2, path)
    if bias is not None and kind == "NoreftIntervention":  # it subtracts W2 h + bias; the other never uses it
        if act != "linear" or bias.shape != b.shape:
            raise RecordError(f"`proj_layer.bias` has no counterpart here beside `act={act!r}`, found one in `{path}`")
        b = b - bias.float()
    return {"basis": w2.mT.contiguous(), "w": w, "bias": b}


def _take(stored: dict[str, Tensor], names: tuple[str, ...], path: Path) -> list[Tensor]:
    if stored.keys() != set(names) or not all(tensor.is_floating_point() for tensor in stored.values()):
        raise RecordError(f"`{path}` must hold the real tensors {', '.join(names)}, got {', '.join(sorted(stored))}")
    return [stored[name].detach().float() for name in names]


def _check_shapes(w: Tensor, b: Tensor, rows: Tensor, path: Path) -> None:
    """W and R or W2 (r, d), b (r,), with r <= d."""
    if w.ndim != 2 or rows.shape != w.shape or b.shape != w.shape[:1] or not 1 <= w.shape[0] <= w.shape[1]:
        raise RecordError(
            f"`{path}` must hold matrices (r, d) and a vector (r,) with r <= d, got {tuple(w.shape)}, "
            f"{tuple(rows.shape)} and {tuple(b.shape)}; save the edit again"
        )
