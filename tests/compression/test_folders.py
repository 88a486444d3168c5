"""Tuned models and adapters as they are saved, compressed and restored."""

import json
import shutil

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from deltaproof.backbones import load_backbone, save_tiny
from deltaproof.compression.compeft import compress
from deltaproof.compression.container import Compressed, read_compressed
from deltaproof.compression.entries import Whole
from deltaproof.compression.folder import Options, compress_folder, open_source
from deltaproof.compression.restore import decompress, load_compressed, restored
from deltaproof.errors import BackboneError, CompressionError, ConfigError, CorruptFileError, RecordError
from deltaproof.methods import method_from
from deltaproof.methods.tuned import attach
from deltaproof.records.spec import Spec
from deltaproof.saving.folder import load_tuned, save_tuned
from deltaproof.tasks.text import TextTask
from deltaproof.testing.bench import Bench

TASK = TextTask("classification", ("neg", "pos"), ("accuracy",), 16)
METHODS = (
    "lora(rank=4)", "dora(rank=2)", "ia3", "pica(rank=4)", "full", "together(lora(rank=2), ln_tune)",
    "lora(rank=2, rank_stabilised=True)",
)  # fmt: skip


def save(method, bert, folder, n_steps=3):
    backbone = load_backbone(str(bert), "classification", 2, labels=TASK.labels)
    tuned = attach(backbone, method_from(method))
    if n_steps:
        Bench().train(tuned, n_steps=n_steps, learning_rate=1e-2)
    model = {"name": str(bert), "fingerprint": backbone.fingerprint, "revision": ""}
    spec = Spec(tuned.method.label, tuned.method.to_dict(), model, TASK.to_json(), {}, {}, seed=0, stage="final")
    save_tuned(tuned, TASK, spec, folder)
    return folder


@pytest.fixture(scope="module")
def saved(bert, tmp_path_factory):
    """Folders by method, as `train` leaves them."""
    return {method: save(method, bert, tmp_path_factory.mktemp("tuned") / "best") for method in METHODS}


def logits(tuned):
    return Bench().answers(tuned)


@pytest.mark.parametrize("method", METHODS)
def test_a_file_answers_as_the_compressed_update_in_memory_and_as_the_folder_made_of_it(method, saved, tmp_path):
    source, _ = open_source(saved[method], Options())
    found = compress(source, 0.3).compressed
    tuned, _, _ = load_tuned(saved[method])
    before = logits(tuned)
    parts = {part.name: part for part in source.parts}

    def start(name):
        return source.start(parts[name]) if parts[name].start else source.base(parts[name])

    state = {name: restored(entry, start) for name, entry in found.entries.items()}
    if method == "full":
        tuned.backbone.model.load_state_dict(state, strict=True)
    else:
        tuned.load_state(state)
    in_memory = logits(tuned)
    report = compress_folder(saved[method], tmp_path / "x.dpz", density=0.3)
    assert report.sizes.file_bytes == (tmp_path / "x.dpz").stat().st_size
    loaded, task, _ = load_compressed(tmp_path / "x.dpz")
    assert task == TASK
    assert torch.equal(logits(loaded), in_memory)
    decompress(tmp_path / "x.dpz", tmp_path / "again")
    again, _, spec = load_tuned(tmp_path / "again")
    assert torch.equal(logits(again), in_memory)
    assert spec["contestant"] == load_tuned(saved[method])[2]["contestant"]
    assert not torch.equal(in_memory, before)


@pytest.mark.parametrize("method", METHODS)
def test_heads_norms_biases_and_lengths_stay_byte_for_byte(method, saved, tmp_path):
    compress_folder(saved[method], tmp_path / "x.dpz", density=0.3)
    decompress(tmp_path / "x.dpz", tmp_path / "again")
    name = "model.safetensors" if method == "full" else "deltaproof.safetensors"
    before, after = load_file(saved[method] / name), load_file(tmp_path / "again" / name)
    assert before.keys() == after.keys()
    kept = [
        key for key in before
        if key.startswith(("classifier", "bert.pooler")) or "Norm" in key or "bias" in key or "embeddings" in key
        or key.endswith((".magnitude", ".fingerprint"))
    ]  # fmt: skip
    assert any(key.startswith("classifier") for key in kept)
    for key in kept:
        if "pooler" not in key or method != "full":
            assert torch.equal(before[key], after[key]), key
    assert any(not torch.equal(before[key], after[key]) for key in before)


def test_untrained_lora_answers_as_before_when_counted_from_its_true_start(bert, tmp_path):
    folder = save("lora(rank=4)", bert, tmp_path / "fresh", n_steps=0)
    compress_folder(folder, tmp_path / "x.dpz")
    assert torch.equal(logits(load_compressed(tmp_path / "x.dpz")[0]), logits(load_tuned(folder)[0]))


def test_factors_are_counted_from_the_start_of_their_seed_or_from_zero(saved):
    source, _ = open_source(saved["lora(rank=4)"], Options())
    kinds = {part.name.rpartition(".")[2]: part.start for part in source.parts}
    assert kinds["a"] == "init"
    assert kinds["b"] == "zero"
    backbone = load_backbone(load_tuned(saved["lora(rank=4)"])[2]["model"]["name"], "classification", 2)
    fresh = attach(backbone, method_from("lora(rank=4)"), 0).state()
    for part in source.parts:
        if part.start == "init":
            assert torch.equal(source.start(part), fresh[part.name])
    raw, _ = open_source(saved["lora(rank=4)"], Options(start="zero"))
    assert {part.start for part in raw.parts} == {"zero", None}


def test_a_gain_is_counted_from_one(saved, tmp_path):
    compress_folder(saved["ia3"], tmp_path / "x.dpz", density=0.2)
    decompress(tmp_path / "x.dpz", tmp_path / "again")
    after = load_file(tmp_path / "again" / "deltaproof.safetensors")
    gains = torch.cat([value for name, value in after.items() if name.endswith(".gain")])
    assert len(gains.unique()) <= 1 + 2 * sum(name.endswith(".gain") for name in after)
    assert (gains == 1).float().mean() == pytest.approx(0.8, abs=0.03)


def test_rows_of_a_full_update_that_did_not_change_cost_nothing(bert, tmp_path):
    folder = save("full", bert, tmp_path / "best", n_steps=0)
    tensors = load_file(folder / "model.safetensors")
    tensors["bert.embeddings.word_embeddings.weight"][3] += 1
    tensors["bert.encoder.layer.0.attention.self.query.weight"][0, :8] += 1
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    report = compress_folder(folder, tmp_path / "x.dpz", density=0.1)
    width = tensors["bert.embeddings.word_embeddings.weight"].shape[1]
    head = sum(tensors[name].nbytes for name in tensors if name.startswith("classifier"))
    assert report.sizes.whole_bytes == 4 + 4 * width + head
    decompress(tmp_path / "x.dpz", tmp_path / "again")
    after = load_file(tmp_path / "again" / "model.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(after[name], tensors[name])
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "again")
    assert model.config.id2label == {0: "neg", 1: "pos"}


def test_another_base_is_refused(saved, tmp_path):
    other = save_tiny("bert", tmp_path / "other", seed=1)
    for method in ("full", "lora(rank=4)"):
        compress_folder(saved[method], tmp_path / "x.dpz", density=0.3)
        with pytest.raises(RecordError, match=r"must be the (model|one) that"):
            decompress(tmp_path / "x.dpz", tmp_path / "again", base=str(other))
        with pytest.raises(BackboneError, match="must exist"):
            decompress(tmp_path / "x.dpz", tmp_path / "again", base=str(tmp_path / "nowhere"))


def test_what_has_nothing_to_compress_is_said_so(bert, tmp_path):
    for method in ("bitfit", "prefix(length=2)", "head"):
        folder = save(method, bert, tmp_path / method)
        name = method.partition("(")[0]
        with pytest.raises(CompressionError, match=f"`{name}.*` has none; ship its folder as it is"):
            compress_folder(folder, tmp_path / "x.dpz")
    with pytest.raises(RecordError, match="must hold a tuned model, a run's `best` or a PEFT adapter"):
        compress_folder(tmp_path, tmp_path / "x.dpz")


@pytest.fixture(scope="module")
def adapter(bert, tmp_path_factory):
    """A function that trains and saves an adapter with peft alone; it gives the folder, and the one before training."""

    def make(config, n_steps=3, dtype=None):
        torch.manual_seed(0)
        base = AutoModelForSequenceClassification.from_pretrained(bert, num_labels=2)
        model = peft.get_peft_model(base, config)
        folder = tmp_path_factory.mktemp("adapter")
        model.save_pretrained(folder / "before")
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.5)
        batch = {"input_ids": torch.randint(5, 40, (8, 6)), "labels": torch.randint(0, 2, (8,))}
        for _ in range(n_steps):
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        model.to(dtype).save_pretrained(folder / "after")
        return folder / "after", folder / "before"

    return make


CONFIGS = {
    "lora": {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["query", "value"],
        "rank_pattern": {"0.attention.self.query": 2},
    },
    "rslora with biases": {"r": 4, "use_rslora": True, "bias": "lora_only", "target_modules": ["query"]},
    "dora": {"r": 4, "use_dora": True, "target_modules": ["query", "key"]},
    "alphas by module and a pooler": {
        "r": 4,
        "alpha_pattern": {"value": 3, "1.attention.self.query": 16},
        "target_modules": ["query", "value"],
        "modules_to_save": ["pooler", "classifier"],
    },
    "bf16": {"r": 4, "target_modules": ["query", "value"]},
    "fp16": {"r": 4, "target_modules": ["query", "value"]},
    "ia3": {"target_modules": ["key", "value", "output.dense"], "feedforward_modules": ["output.dense"]},
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_an_adapter_of_pefts_comes_back_as_one(kind, adapter, bert, tmp_path):
    config = (peft.IA3Config if kind == "ia3" else peft.LoraConfig)(task_type="SEQ_CLS", **CONFIGS[kind])
    folder, _ = adapter(config, dtype={"bf16": torch.bfloat16, "fp16": torch.float16}.get(kind, torch.float32))
    compress_folder(folder, tmp_path / "x.dpz", density=0.3)
    decompress(tmp_path / "x.dpz", tmp_path / "again")
    before, after = (load_file(at / "adapter_model.safetensors") for at in (folder, tmp_path / "again"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        is_factor = any(part in name for part in ("lora_A", "lora_B", "ia3_l"))
        assert torch.equal(tensor, after[name]) != (is_factor and "bias" not in name), name
        assert tensor.dtype == after[name].dtype
    configs = [json.loads((at / "adapter_config.json").read_text()) for at in (folder, tmp_path / "again")]
    assert configs[0] == configs[1]
    model = peft.get_peft_model(AutoModelForSequenceClassification.from_pretrained(bert, num_labels=2), config)
    result = peft.set_peft_model_state_dict(model, after)
    assert result.unexpected_keys == []
    assert not [key for key in result.missing_keys if "lora_" in key or "ia3_l" in key]
    loaded = peft.PeftModel.from_pretrained(
        AutoModelForSequenceClassification.from_pretrained(bert, num_labels=2), tmp_path / "again"
    )
    ids = torch.randint(5, 40, (4, 6))
    assert torch.equal(loaded.eval()(input_ids=ids).logits, model.eval()(input_ids=ids).logits)


def test_an_adapter_on_transposed_weights_comes_back_as_one(tmp_path):
    base = save_tiny("gpt2", tmp_path / "gpt2")
    torch.manual_seed(0)

    def plain():
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
        model.config.pad_token_id = 0
        return model

    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
    model = peft.get_peft_model(plain(), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "a")
    compress_folder(tmp_path / "a", tmp_path / "x.dpz", density=1.0)
    decompress(tmp_path / "x.dpz", tmp_path / "again")
    before, after = (load_file(tmp_path / at / "adapter_model.safetensors") for at in ("a", "again"))
    for name, tensor in before.items():
        wanted = tensor.sign() * tensor.abs().double().mean().float() if "lora_" in name else tensor
        torch.testing.assert_close(after[name], wanted, rtol=1e-6, atol=0)
    found = peft.PeftModel.from_pretrained(plain(), tmp_path / "again").eval()
    result = peft.set_peft_model_state_dict(model, after)
    assert result.unexpected_keys == []
    ids = torch.randint(5, 40, (4, 6))
    assert torch.equal(found(input_ids=ids).logits, model.eval()(input_ids=ids).logits)


def test_a_pickled_adapter_is_never_opened(adapter, tmp_path):
    folder, _ = adapter(peft.LoraConfig(task_type="SEQ_CLS", **CONFIGS["lora"]), n_steps=0)
    shutil.copytree(folder, tmp_path / "a")
    torch.save(load_file(tmp_path / "a" / "adapter_model.safetensors"), tmp_path / "a" / "adapter_model.bin")
    (tmp_path / "a" / "adapter_model.safetensors").unlink()
    with pytest.raises(CompressionError, match="pickles are never opened"):
        compress_folder(tmp_path / "a", tmp_path / "x.dpz")


def test_a_tensor_that_a_method_lacks_and_one_too_many_are_told_apart_from_damage(saved, tmp_path):
    compress_folder(saved["lora(rank=4)"], tmp_path / "x.dpz")
    whole = read_compressed(tmp_path / "x.dpz")
    fewer = dict(whole.entries)
    gone = fewer.pop(next(name for name in fewer if name.endswith(".b")))
    Compressed(fewer, whole.facts).write(tmp_path / "fewer.dpz")
    with pytest.raises(ConfigError, match=f"these differ: .*{gone.name}"):
        load_compressed(tmp_path / "fewer.dpz")
    more = {**whole.entries, "another": Whole("another", (), "F32", bytes(4))}
    Compressed(more, whole.facts).write(tmp_path / "more.dpz")
    with pytest.raises(ConfigError, match=r"these differ: .'another'"):
        load_compressed(tmp_path / "more.dpz")


def test_untrained_gains_of_pefts_come_back_as_ones(adapter, tmp_path):
    folder, _ = adapter(peft.IA3Config(task_type="SEQ_CLS", **CONFIGS["ia3"]), n_steps=0)
    compress_folder(folder, tmp_path / "x.dpz")
    decompress(tmp_path / "x.dpz", tmp_path / "again")
    for name, tensor in load_file(tmp_path / "again" / "adapter_model.safetensors").items():
        if "ia3_l" in name:
            assert bool((tensor == 1).all()), name


def test_an_adapter_with_its_start_is_counted_from_it(adapter, tmp_path):
    folder, before = adapter(peft.LoraConfig(task_type="SEQ_CLS", **CONFIGS["lora"]))
    with pytest.raises(ConfigError, match="`--start init` needs the start"):
        open_source(folder, Options(start="init"))
    raw = compress_folder(folder, tmp_path / "raw.dpz", density=0.3)
    found = compress_folder(folder, tmp_path / "x.dpz", density=0.3, options=Options(initial=before))
    assert (raw.start, found.start) == ("zero", "init")
    with pytest.raises(ConfigError, match="name its folder with `--initial`"):
        decompress(tmp_path / "x.dpz", tmp_path / "again")
    with pytest.raises(RecordError, match="its start values came out otherwise here"):
        decompress(tmp_path / "x.dpz", tmp_path / "again", initial=folder)
    decompress(tmp_path / "x.dpz", tmp_path / "again", initial=before)
    truth, close, start = (
        load_file(at / "adapter_model.safetensors") for at in (folder, tmp_path / "again", before)
    )  # fmt: skip
    for name, tensor in truth.items():
        if "lora_A" in name:
            assert (close[name] - tensor).norm() < (start[name] - tensor).norm()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "must be LoRA or IA3 to be compressed, .* is PREFIX_TUNING"),
        ({"init_lora_weights": "pissa"}, "must have started with B at zero, .* started with `pissa`"),
    ],
)
def test_adapters_that_would_not_survive_are_refused(change, message, adapter, tmp_path):
    folder, _ = adapter(peft.LoraConfig(task_type="SEQ_CLS", **CONFIGS["lora"]), n_steps=0)
    shutil.copytree(folder, tmp_path / "a")
    config = json.loads((folder / "adapter_config.json").read_text())
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CompressionError, match=message):
        compress_folder(tmp_path / "a", tmp_path / "x.dpz")


def test_a_model_that_others_tuned_is_compressed_against_the_base_that_is_named(bert, tmp_path):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(bert, num_labels=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "tuned")
    with pytest.raises(CompressionError, match="name it with `--base`"):
        compress_folder(tmp_path / "tuned", tmp_path / "x.dpz")
    whole = compress_folder(tmp_path / "tuned", tmp_path / "x.dpz", options=Options(base=str(bert)))
    small = compress_folder(
        tmp_path / "tuned", tmp_path / "y.dpz", options=Options(base=str(bert), embeddings=True)
    )  # fmt: skip
    assert small.sizes.file_bytes < whole.sizes.file_bytes
    assert small.sizes.n_ternary > whole.sizes.n_ternary
    decompress(tmp_path / "y.dpz", tmp_path / "again")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "again")
    base, names = load_file(bert / "model.safetensors"), dict(model.named_parameters())
    for name, parameter in again.named_parameters():
        short = name.removeprefix("bert.")
        if parameter.ndim == 2 and short in base and "pooler" not in name:
            steps = ((parameter - base[short]) / 0.01).abs().detach()
            assert ((steps > 0.5).float().mean()).item() == pytest.approx(0.2, abs=0.01), name
        elif parameter.ndim < 2:
            assert torch.equal(parameter, names[name]), name


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"holds": "pickle", "base": {"name": "x"}},
        {"holds": "peft", "base": {"name": "x"}},
        {"holds": "model", "base": {"name": "x"}, "config": {}},
        {"holds": "tuned", "base": {"name": "x"}, "task": {}, "spec": {}},
        {"holds": "tuned", "base": {"name": "x"}, "task": TASK.to_json(), "spec": {"seed": 0}},
        {"holds": "tuned", "base": []},
    ],
)
def test_a_file_that_does_not_say_what_it_holds_is_refused(facts, tmp_path):
    Compressed({}, facts).write(tmp_path / "x.dpz")
    with pytest.raises(CorruptFileError, match="must say what it holds, got"):
        decompress(tmp_path / "x.dpz", tmp_path / "out")
    assert not (tmp_path / "out").exists()
