"""A whole tuned model against its base, as an update to compress, two tensors in memory at a time."""

from pathlib import Path
from typing import Any

from torch import Tensor

from deltaproof.backbones.source import find_source
from deltaproof.compression.source import Part, Source
from deltaproof.errors import CompressionError, RecordError
from deltaproof.saving.folder import FACTS, check_base
from deltaproof.theory.checkpoints import Checkpoint, open_model, read_json_file
from deltaproof.theory.deltas import common_prefix
from deltaproof.theory.skeleton import Skeleton, skeleton_of

_WHOLE_ROLES = ("norm", "embedding", "head")


class ModelSource(Source):
    """Matrices to compress; heads, norms, biases and, unless asked for, embeddings to keep."""

    def __init__(self, folder: Path, base: str | None = None, embeddings: bool = False) -> None:
        facts = read_json_file(folder / FACTS) if (folder / FACTS).is_file() else {}
        spec: dict[str, Any] = facts.get("spec", {})
        named = base or spec.get("model", {}).get("name")
        if named is None:
            raise CompressionError(
                f"a whole model is compressed against its base, `{folder}` does not say which it was tuned from; name "
                f"it "
                f"with `--base`"
            )
        revision = None if base else spec.get("model", {}).get("revision") or None
        found = find_source(named, revision)
        fingerprint = found.fingerprint()
        if spec:
            check_base(fingerprint, spec, f"`{folder}`")
        self._base, self._tuned = open_model(named, revision), open_model(str(folder))
        self._names = base_names(self._base, self._tuned)
        self._skeleton = skeleton_of(folder)
        self.parts = [self._part(name, embeddings) for name in sorted(self._tuned)]
        if not any(part.start for part in self.parts):
            raise RecordError(f"a tuned model must have matrices of its base, `{folder}` has none of `{named}`")
        model = {"name": named, "fingerprint": fingerprint, "revision": found.revision}
        self.facts = {
            "holds": "model", "start": "base", "base": model, "config": read_json_file(folder / "config.json"),
            **({"spec": spec, "task": facts.get("task")} if spec else {}),
        }  # fmt: skip

    def tensor(self, part: Part) -> Tensor:
        return self._tuned[part.name]

    def start(self, part: Part) -> Tensor | None:
        return self._base[self._names[part.name]]

    def base(self, part: Part) -> Tensor | None:
        return self._base[self._names[part.name]] if part.name in self._names else None

    def _part(self, name: str, embeddings: bool) -> Part:
        shape, dtype = self._tuned.shape(name), self._tuned[name].dtype
        has_base = name in self._names and self._base.shape(self._names[name]) == shape
        if not has_base:
            self._names.pop(name, None)
        is_matrix = len(shape) >= 2 and dtype.is_floating_point and has_base
        roles = self._roles(name)
        kept = [role for role in _WHOLE_ROLES if role in roles and not (embeddings and role == "embedding")]
        if not is_matrix or kept or _is_head(name):
            return Part(name, shape, dtype, None)
        return Part(name, shape, dtype, "base", "weight", name.rpartition(".")[0])

    def _roles(self, name: str) -> set[str]:
        """What the tensor does in the model; by its name where the family is unknown."""
        if self._skeleton is not None:
            found = {site.role for site in self._skeleton.sites_of(self._skeleton.short(name))}
            if found:
                return found
        return {"embedding"} if "embed" in name or ".wte." in name or ".wpe." in name else set()


def base_names(base: Checkpoint, tuned: Checkpoint) -> dict[str, str]:
    """What each tensor of a tuned model is called in its base: `bert.encoder…` and `encoder…` are one."""
    short = Skeleton(common_prefix(base, tuned)).short
    there = {short(name): name for name in base}
    return {name: there[short(name)] for name in tuned if short(name) in there}


def _is_head(name: str) -> bool:
    return name.split(".")[0] in ("classifier", "score", "lm_head", "qa_outputs")
