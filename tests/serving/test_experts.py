"""Experts on one base: each answers as it would alone, whoever answered before, and the base stays as it is."""

import hashlib
import shutil
import threading

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import deltaproof
from deltaproof.backbones import save_tiny
from deltaproof.compression.folder import compress_folder
from deltaproof.compression.restore import decompress, load_compressed
from deltaproof.errors import ConfigError, CorruptFileError, RecordError
from deltaproof.evaluation.predict import predict
from deltaproof.saving.folder import load_tuned
from deltaproof.serving import experts as experts_module
from deltaproof.serving.experts import Experts
from own_folders import save_own
from serving.conftest import OWN, PEFT, SMALL, lora, save_peft

TEXTS = ["a good film", "a bad film, with a bad story!", "the dog does not mind at all", "no"]


@pytest.fixture(scope="module")
def experts(base, folder):
    return Experts(str(base), folder)


@pytest.fixture(scope="module")
def batch(base):
    return dict(AutoTokenizer.from_pretrained(base)(TEXTS, padding=True, return_tensors="pt"))


@torch.inference_mode()
def logits(model, batch):
    return model(**batch).logits


def digest(model):
    found = hashlib.sha256()
    for tensor in model.state_dict().values():
        found.update(tensor.numpy().tobytes())
    return found.hexdigest()


def alone(name, folder, base):
    """The expert opened by itself, as its makers open it."""
    if name.endswith("-small") and name.startswith("p-"):
        out = folder.parent / f"{name}-again"
        if not out.exists():
            decompress(folder / f"{name}.dpz", out)
        return with_peft(out, base, 2)
    if name.endswith("-small"):
        return load_compressed(folder / f"{name}.dpz")[0]
    return with_peft(folder / name, base, PEFT[name][1]) if name in PEFT else load_tuned(folder / name)[0]


def with_peft(folder, base, n_labels):
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=n_labels)
    return peft.PeftModel.from_pretrained(model, folder).eval()


ALL = [*OWN, *PEFT, *(f"{name}-small" for name in SMALL)]


def test_the_names_are_those_of_files_and_folders(experts):
    assert experts.names == sorted(ALL)


@pytest.mark.parametrize("name", ALL)
def test_an_expert_answers_to_the_bit_as_it_does_alone(name, experts, folder, base, batch):
    assert torch.equal(logits(experts.use(name), batch), logits(alone(name, folder, base), batch))


@pytest.mark.parametrize(("seats", "n_switches"), [(len(ALL), 1000), (4, 100)], ids=["all sit", "most are seated anew"])
def test_a_thousand_switches_leave_base_and_experts_to_the_bit(seats, n_switches, base, folder, batch):
    experts = Experts(str(base), folder, seats=seats)
    before = digest(experts.base.model)
    first = {name: logits(experts.use(name), batch) for name in ALL}
    draw = np.random.default_rng(0)
    for name in draw.choice([name for name in ALL if "whole" not in name], n_switches):
        experts.use(str(name))
    assert all(torch.equal(logits(experts.use(name), batch), first[name]) for name in ALL)
    assert digest(experts.base.model) == before
    plain = AutoModelForSequenceClassification.from_pretrained(experts.base.folder)
    own = dict(experts.base.model.named_parameters())
    assert all(torch.equal(value, own[name]) for name, value in plain.named_parameters() if "classifier" not in name)


@pytest.mark.parametrize("name", ["lora", "three", "number", "tags", "whole-small"])
def test_what_is_told_of_a_text_is_what_the_task_makes_of_the_outputs(name, experts, folder, base):
    tuned, task, _ = (load_compressed if "small" in name else load_tuned)(
        folder / (f"{name}.dpz" if "small" in name else name)
    )
    tokenizer = tuned.backbone.tokenizer
    outputs = predict(tuned, task, task.encode_texts(tokenizer, [(text,) for text in TEXTS]), tokenizer.pad_token_id)
    told = experts.predict(name, TEXTS)
    if task.kind == "regression":
        assert [row["value"] for row in told] == outputs[:, 0].tolist()
        return
    assert [list(row["probabilities"].values()) for row in told] == outputs.tolist()
    if task.kind == "classification":
        assert [row["label"] for row in told] == [task.labels[at] for at in outputs.argmax(1)]
    else:
        assert [row["label"] for row in told] == [
            [label for label, p in zip(task.labels, row, strict=True) if p >= 0.5] for row in outputs
        ]


def test_a_model_says_what_its_outputs_are(experts):
    assert experts.use("three").model.config.id2label == {0: "bad", 1: "fair", 2: "good"}
    assert experts.use("lora").model.config.id2label == {0: "neg", 1: "pos"}
    assert experts.predict("lora", []) == []
    assert experts.predict("lora", [("a film", "a dog")])[0]["label"] in ("neg", "pos")


@pytest.mark.parametrize("given", ["one text", [None], [("a", 1)]])
def test_what_is_no_list_of_texts_is_refused_and_not_answered_letter_by_letter(given, experts):
    with pytest.raises(ConfigError, match="list of texts"):
        experts.predict("lora", given)


def test_an_unknown_name_gets_the_nearest(experts):
    with pytest.raises(ConfigError, match=r"`lorra` must be one of the \d+ experts; did you mean `lora`"):
        experts.use("lorra")
    with pytest.raises(ConfigError, match="some are biases, both, both-small"):
        experts.use("xyzzy")


def test_experts_that_come_later_and_files_that_change_are_seen(base, tmp_path, batch):
    save_own("lora(rank=2)", base, tmp_path / "x" / "a", seed=1)
    experts = Experts(str(base), tmp_path / "x")
    first = logits(experts.use("a"), batch)
    save_own("lora(rank=2)", base, tmp_path / "x" / "b", seed=2)
    second = logits(experts.use("b"), batch)
    assert not torch.equal(first, second)
    shutil.rmtree(tmp_path / "x" / "a")
    shutil.copytree(tmp_path / "x" / "b", tmp_path / "x" / "a")
    assert torch.equal(logits(experts.use("a"), batch), second)


def test_the_cache_is_bounded_in_bytes_and_keeps_what_was_used_last(base, tmp_path, monkeypatch):
    for name in "abcd":
        save_own("lora(rank=4)", base, tmp_path / name, seed=ord(name))
    size = sum(tensor.nbytes for tensor in load_file(tmp_path / "a" / "deltaproof.safetensors").values())
    experts = Experts(str(base), tmp_path, cache_bytes=2 * size)
    for name in "abac":
        experts.use(name)
    assert experts.cached == {"a": size, "c": size}
    assert experts.sitting == ["c"]
    none = Experts(str(base), tmp_path, cache_bytes=size - 1)
    none.use("a")
    assert none.cached == {}
    assert none.predict("b", ["x"])
    monkeypatch.setattr(experts_module, "read_expert", lambda *_: pytest.fail("it sits there and is read again"))
    assert none.predict("b", ["x"])


def test_compressed_experts_stay_compressed_in_the_cache(base, folder, tmp_path):
    path = folder / "lora-small.dpz"
    dense = sum(tensor.nbytes for tensor in load_file(folder / "lora" / "deltaproof.safetensors").values())
    experts = Experts(str(base), {"x": path})
    experts.use("x")
    assert experts.cached["x"] < min(path.stat().st_size, dense)


def test_no_more_seats_stand_than_were_asked_for(base, folder):
    experts = Experts(str(base), folder, seats=2)
    for name in ("lora", "three", "gains", "p-lora"):
        experts.use(name)
    assert experts.sitting == ["gains", "p-lora"]
    with pytest.raises(ConfigError, match="`seats >= 1`"):
        Experts(str(base), folder, seats=0)


def damaged(kind, folder, base, to):
    """A folder with a sound expert and one that cannot be served, and what its error says."""
    to.mkdir()
    if kind == "code":
        data = bytearray((folder / "lora-small.dpz").read_bytes())
        data[-100] ^= 1
        (to / "x.dpz").write_bytes(bytes(data))
        return CorruptFileError, "its checksum differs"
    if kind == "safetensors":
        shutil.copytree(folder / "other-seed", to / "x")
        whole = (to / "x" / "deltaproof.safetensors").read_bytes()
        (to / "x" / "deltaproof.safetensors").write_bytes(whole[:-100])
        return CorruptFileError, "must be whole safetensors"
    if kind == "tensor":
        shutil.copytree(folder / "other-seed", to / "x")
        tensors = load_file(to / "x" / "deltaproof.safetensors")
        tensors.pop(next(name for name in tensors if name.endswith(".b")))
        save_file(tensors, to / "x" / "deltaproof.safetensors")
        return RecordError, "no more and no fewer"
    if kind == "pickle":
        shutil.copytree(folder / "p-lora", to / "x")
        tensors = load_file(to / "x" / "adapter_model.safetensors")
        (to / "x" / "adapter_model.safetensors").unlink()
        torch.save(tensors, to / "x" / "adapter_model.bin")
        return ConfigError, "pickled weights can run code"
    if kind == "head":
        shutil.copytree(folder / "p-lora", to / "x")
        tensors = load_file(to / "x" / "adapter_model.safetensors")
        kept = {name: tensor for name, tensor in tensors.items() if "classifier" not in name}
        save_file(kept, to / "x" / "adapter_model.safetensors")
        return RecordError, "no more and no fewer"
    other = save_tiny("bert", to.parent / "other", seed=1)
    if kind == "base":
        save_own("lora(rank=4)", other, to / "x")
    elif kind == "base of a file":
        save_own("lora(rank=4)", other, to.parent / "y")
        compress_folder(to.parent / "y", to / "x.dpz")
    else:
        save_peft(lora(), other, to / "x")
        return RecordError, "which has other weights"
    return RecordError, "fingerprint"


@pytest.mark.parametrize(
    "kind", ["code", "safetensors", "tensor", "pickle", "head", "base", "base of a file", "base of peft's"]
)
def test_what_cannot_be_served_says_why_and_leaves_the_others_as_they_were(kind, folder, base, tmp_path, batch):
    error, message = damaged(kind, folder, base, tmp_path / "x")
    shutil.copytree(folder / "lora", tmp_path / "x" / "sound")
    experts = Experts(str(base), tmp_path / "x")
    model = experts.use("sound")
    before = logits(model, batch)
    for _ in range(2):
        with pytest.raises(error, match=message):
            experts.use("x")
        assert torch.equal(logits(model, batch), before)
        assert experts.use("sound") is model
    assert torch.equal(logits(model, batch), before)


def test_threads_get_the_answers_of_the_expert_that_they_asked(experts):
    names = ["lora", "other-seed", "lora-small", "three", "p-lora", "gains"]
    wanted = {name: experts.predict(name, TEXTS) for name in names}
    wrong: list[str] = []

    def ask(seed):
        draw = np.random.default_rng(seed)
        for name in map(str, draw.choice(names, 20)):
            if experts.predict(name, TEXTS) != wanted[name]:
                wrong.append(name)
            with experts.using(name) as model:
                assert model is experts.use(name)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_it_is_there_without_naming_a_module(base, folder):
    assert deltaproof.Experts is Experts
    with pytest.raises(RecordError, match="must lie in a folder"):
        Experts(str(base), folder / "nowhere")


def test_two_experts_of_one_name_are_refused(base, folder, tmp_path):
    shutil.copytree(folder / "lora", tmp_path / "a")
    shutil.copy(folder / "lora-small.dpz", tmp_path / "a.dpz")
    with pytest.raises(ConfigError, match="has two of the name `a`"):
        Experts(str(base), tmp_path)


@pytest.mark.parametrize("family", ["gpt2", "modernbert", "distilbert"])
def test_other_families_serve_their_own_heads(family, tmp_path):
    base = save_tiny(family, tmp_path / "base")
    save_own("lora(rank=2)", base, tmp_path / "x" / "own", seed=3)
    compress_folder(tmp_path / "x" / "own", tmp_path / "x" / "small.dpz")
    targets = {"gpt2": ["c_attn"], "modernbert": ["Wqkv"], "distilbert": ["q_lin"]}[family]
    config = lora(target_modules=targets, fan_in_fan_out=family == "gpt2")
    if family == "modernbert":
        config.modules_to_save = ["head", "classifier"]
    save_peft(config, base, tmp_path / "x" / "theirs", 3)
    experts = Experts(str(base), tmp_path / "x")
    batch = dict(experts.base.tokenizer(TEXTS[:1], return_tensors="pt"))
    for _ in range(2):
        assert torch.equal(logits(experts.use("own"), batch), logits(load_tuned(tmp_path / "x" / "own")[0], batch))
        small = load_compressed(tmp_path / "x" / "small.dpz")[0]
        assert torch.equal(logits(experts.use("small"), batch), logits(small, batch))
        theirs = with_peft(tmp_path / "x" / "theirs", base, 3)
        assert torch.equal(logits(experts.use("theirs"), batch), logits(theirs, batch))
