"""Folders of pyreft are read as methods with their values, and what is no such folder is refused."""

import json
import pickle
import zipfile

import pytest
import torch

from deltaproof.backbones import tiny_language_model
from deltaproof.errors import ConfigError, RecordError
from deltaproof.methods.orthonormal import orthonormal
from deltaproof.methods.tuned import attach
from deltaproof.saving.pyreft import read_pyreft

WIDTH, RANK = 32, 4


def loreft_values(seed, width=WIDTH, rank=RANK):
    draw = torch.Generator().manual_seed(seed)
    r = torch.linalg.qr(torch.randn(width, rank, generator=draw)).Q
    return {
        "weight": torch.randn(rank, width, generator=draw).bfloat16(),
        "bias": torch.randn(rank, generator=draw).bfloat16(),
        "rotate_layer": r,
    }


def direft_values(seed):
    draw = torch.Generator().manual_seed(seed)
    return {
        "embed_dim": torch.tensor(WIDTH),
        "proj_layer.weight": torch.randn(RANK, WIDTH, generator=draw),
        "proj_layer.bias": torch.randn(RANK, generator=draw),
        "learned_source.weight": torch.randn(RANK, WIDTH, generator=draw),
        "learned_source.bias": torch.randn(RANK, generator=draw),
    }


def write_folder(folder, values, kind="LoreftIntervention", places=((0, 0), (1, 0)), place="block_output"):
    """A folder as pyreft's `save` lays it out; `places` are layers and numbers."""
    keys = [f"layer_{layer}_comp_{place.format(layer)}_unit_pos_nunit_1#{number}" for layer, number in places]
    config = {
        "representations": [[layer, place.format(layer), "pos", 1, RANK] + 8 * [None] for layer, _ in places],
        "intervention_types": [f"<class 'pyreft.interventions.{kind}'>" for _ in places],
        "sorted_keys": keys,
        "intervention_dimensions": [WIDTH] * len(places),
        "mode": "parallel",
    }
    (folder / "config.json").write_text(json.dumps(config))
    for key, value in zip(keys, values, strict=True):
        torch.save(value, folder / f"intkey_{key}.bin")
    return folder


@pytest.mark.parametrize("place", ["block_output", "base_model.model.model.layers[{}].output"])
def test_one_edit_per_layer_is_read_as_a_tied_method(tmp_path, place):
    values = [loreft_values(0), loreft_values(1)]
    backbone = tiny_language_model("llama")
    method, state = read_pyreft(write_folder(tmp_path, values, place=place), backbone, "f2+l2")
    assert method.label == "loreft(positions='f2+l2', layers=[0, 1])"
    tuned = attach(backbone, method)
    tuned.load_state({**tuned.state(), **state})
    for value, (_, edit) in zip(values, tuned.placed(), strict=True):
        torch.testing.assert_close(orthonormal(edit.basis), value["rotate_layer"], atol=2e-6, rtol=0)
        assert torch.equal(edit.w, value["weight"].float())
        assert torch.equal(edit.bias, value["bias"].float())
        h = torch.randn(5, WIDTH)
        r = value["rotate_layer"].T
        wanted = (h @ value["weight"].float().T + value["bias"].float() - h @ r.T) @ r
        torch.testing.assert_close(edit.change(h), wanted, atol=1e-5, rtol=1e-5)


def test_two_edits_per_layer_are_read_as_first_and_last_tokens(tmp_path):
    places = ((0, 0), (1, 0), (0, 1), (1, 1))
    values = [loreft_values(seed) for seed in range(4)]
    backbone = tiny_language_model("llama")
    method, state = read_pyreft(write_folder(tmp_path, values, places=places), backbone, "f5+l5")
    assert not method.tied
    tuned = attach(backbone, method)
    tuned.load_state({**tuned.state(), **state})
    found = {(site.layer, edit.part.start): edit for site, edit in tuned.placed()}
    for (layer, number), value in zip(places, values, strict=True):
        assert torch.equal(found[layer, 5 * number].w, value["weight"].float())
    with pytest.raises(ConfigError, match=r"holds edits for first and for last tokens, got `positions='l5'`"):
        read_pyreft(tmp_path, backbone, "l5")


@pytest.mark.parametrize(("kind", "label"), [
    ("NodireftIntervention", "direft(layers=[0, 1])"),
    ("NoreftIntervention", "loreft(layers=[0, 1], form='unconstrained')"),
])  # fmt: skip
def test_edits_without_constraint_are_read_under_the_papers_names(tmp_path, kind, label):
    values = [direft_values(0), direft_values(1)]
    backbone = tiny_language_model("llama")
    method, state = read_pyreft(write_folder(tmp_path, values, kind), backbone, "f3+l3")
    assert method.label == label
    tuned = attach(backbone, method)
    tuned.load_state({**tuned.state(), **state})
    for value, (_, edit) in zip(values, tuned.placed(), strict=True):
        h = torch.randn(5, WIDTH)
        w2 = value["proj_layer.weight"]
        aim = h @ value["learned_source.weight"].T + value["learned_source.bias"]
        if kind == "NoreftIntervention":
            aim = aim - (h @ w2.T + value["proj_layer.bias"])
        torch.testing.assert_close(edit.change(h), aim @ w2, atol=1e-3, rtol=1e-4)


def test_a_missing_file_is_named(tmp_path):
    write_folder(tmp_path, [loreft_values(0), loreft_values(1)])
    (tmp_path / "intkey_layer_1_comp_block_output_unit_pos_nunit_1#0.bin").unlink()
    with pytest.raises(RecordError, match=r"intkey_layer_1.*must exist, `config.json` names it"):
        read_pyreft(tmp_path, tiny_language_model("llama"), "f3+l3")


def broken(**changes):
    return {**loreft_values(0), **changes}


@pytest.mark.parametrize(("value", "message"), [
    (broken(weight=torch.zeros(RANK, WIDTH + 1)), r"must hold matrices \(r, d\) and a vector \(r,\)"),
    (broken(bias=torch.zeros(RANK + 1)), r"must hold matrices \(r, d\) and a vector \(r,\)"),
    (broken(rotate_layer=torch.zeros(WIDTH, RANK)), "must have orthonormal columns .* off by 1"),
    (broken(rotate_layer=torch.full((WIDTH, RANK), torch.nan)), "must have orthonormal columns"),
    (broken(more=torch.zeros(2)), "must hold the real tensors weight, bias, rotate_layer, got"),
    (broken(weight=torch.zeros(RANK, WIDTH, dtype=torch.long)), "must hold the real tensors"),
    (broken(weight=torch.zeros(1).expand(10**6, 10**6)), "must hold a dictionary of names and tensors"),
    (broken(weight=[1.0]), "must hold a dictionary of names and tensors"),
    ([torch.zeros(2)], "must hold a dictionary of names and tensors"),
])  # fmt: skip
def test_what_is_no_edit_is_refused(tmp_path, value, message):
    write_folder(tmp_path, [loreft_values(0), value])
    with pytest.raises(RecordError, match=message):
        read_pyreft(tmp_path, tiny_language_model("llama"), "f3+l3")


def test_edits_of_another_width_are_refused(tmp_path):
    write_folder(tmp_path, [loreft_values(0, 48), loreft_values(1, 48)])
    with pytest.raises(ConfigError, match="must fit a model of width 32, `tiny-llama`, got edits of width 48"):
        read_pyreft(tmp_path, tiny_language_model("llama"), "f3+l3")


class Evil:
    """What a pickle does when it is loaded is up to whoever wrote it."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return open, (str(self.witness), "w")


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    folder, witness = tmp_path / "folder", tmp_path / "witness"
    folder.mkdir()
    write_folder(folder, [loreft_values(0), {**loreft_values(1), "more": Evil(witness)}])
    with pytest.raises(RecordError, match="must hold tensors alone"):
        read_pyreft(folder, tiny_language_model("llama"), "f3+l3")
    assert not witness.exists()
    name = folder / "intkey_layer_1_comp_block_output_unit_pos_nunit_1#0.bin"
    name.write_bytes(pickle.dumps(Evil(witness)))
    with pytest.raises(RecordError, match="must hold tensors alone, in PyTorch's zip format"):
        read_pyreft(folder, tiny_language_model("llama"), "f3+l3")
    assert not witness.exists()
    pickle.loads(name.read_bytes()).close()  # the trap is real: loaded in full, it springs
    assert witness.exists()


def test_the_older_format_and_compressed_files_are_refused(tmp_path):
    write_folder(tmp_path, [loreft_values(0), loreft_values(1)])
    name = tmp_path / "intkey_layer_1_comp_block_output_unit_pos_nunit_1#0.bin"
    with zipfile.ZipFile(name) as old, zipfile.ZipFile(tmp_path / "new", "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    (tmp_path / "new").rename(name)
    with pytest.raises(RecordError, match="uncompressed"):
        read_pyreft(tmp_path, tiny_language_model("llama"), "f3+l3")
    torch.save(loreft_values(1), name, _use_new_zipfile_serialization=False)
    with pytest.raises(RecordError, match="in PyTorch's zip format"):
        read_pyreft(tmp_path, tiny_language_model("llama"), "f3+l3")


@pytest.mark.parametrize(("changes", "message"), [
    ({"sorted_keys": ["layer_0_comp_mlp_output_unit_pos_nunit_1#0"]}, "must name edits of layers' outputs"),
    ({"sorted_keys": ["../../layer_0_comp_block_output_unit_pos_nunit_1#0"]}, "must name edits of layers' outputs"),
    ({"sorted_keys": ["layer_0_comp_block_output_unit_pos_nunit_1#1"]}, "must hold one edit per layer, or two"),
    ({"sorted_keys": None}, "must hold `sorted_keys` and `intervention_types`"),
    ({"intervention_types": ["<class 'pyreft.interventions.DireftIntervention'>"]}, "R is not stored as a matrix"),
])  # fmt: skip
def test_a_configuration_of_something_else_is_refused(tmp_path, changes, message):
    write_folder(tmp_path, [loreft_values(0), loreft_values(1)])
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(RecordError, match=message):
        read_pyreft(tmp_path, tiny_language_model("llama"), "f3+l3")
