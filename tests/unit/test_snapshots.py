"""Files of what was trained as it stood on the way: when they are written, and that others can read them."""

import pytest
import safetensors.torch
import torch

from deltaproof.backbones import tiny_backbone
from deltaproof.errors import RecordError
from deltaproof.methods import method_from
from deltaproof.methods.tuned import attach
from deltaproof.training.snapshots import SHARES, Snapshots, put_snapshot, write_tensors


def test_snapshots_are_taken_at_shares_of_the_steps_and_never_at_the_end(tmp_path):
    assert sorted(Snapshots(tmp_path, 100).steps) == [round(100 * share) for share in SHARES]
    assert sorted(Snapshots(tmp_path, 2).steps) == [1]
    assert Snapshots(tmp_path, 1).steps == set()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_the_file_is_safetensors_as_the_library_reads_it(tmp_path, dtype):
    tensors = {"matrix": torch.randn(3, 5).to(dtype), "turned": torch.randn(4, 2).T.to(dtype),
               "number": torch.tensor(2.5).to(dtype), "nothing": torch.zeros(0, 3).to(dtype)}  # fmt: skip
    write_tensors(tmp_path / "a.safetensors", tensors)
    back = safetensors.torch.load_file(tmp_path / "a.safetensors")
    assert back.keys() == tensors.keys()
    for name, value in tensors.items():
        assert back[name].dtype == dtype
        assert back[name].shape == value.shape
        assert torch.equal(back[name], value)


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_tensors(tmp_path / "a.safetensors", {"a": torch.ones(2)})
    assert list(tmp_path.iterdir()) == []


def test_a_snapshot_of_another_method_is_refused(tmp_path):
    tuned = {name: attach(tiny_backbone("bert"), method_from(name)) for name in ("bitfit", "lora(rank=2)")}
    write_tensors(tmp_path / "step-1.safetensors", tuned["bitfit"].trained())
    with pytest.raises(RecordError, match=r"must hold what `lora.*` trains, got other tensors"):
        put_snapshot(tuned["lora(rank=2)"], tmp_path / "step-1.safetensors")
