"""What is merged are changes of weights: against closed forms, peft's own merges, and experts of every form."""

import shutil

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from deltaproof.backbones import save_tiny
from deltaproof.compression.folder import Options, compress_folder
from deltaproof.compression.restore import decompress
from deltaproof.errors import ConfigError
from deltaproof.merging import combine
from deltaproof.merging.body import Body
from deltaproof.merging.combine import Recipe, combined, cosines
from deltaproof.merging.sources import look_at
from deltaproof.merging.ternary import looked_up
from deltaproof.saving.folder import load_tuned
from deltaproof.theory.checkpoints import open_model


def body_of(*folders, base=None, tasks=()):
    return Body(look_at(list(folders), base and str(base)), tasks)


def weights_of(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def tuned_weights(folder):
    tuned, _, _ = load_tuned(folder / "best")
    return weights_of(tuned.merge())


def below(body):
    head = {name for one in body.heads for name in one.names}
    return [name for name, _ in body.heads[0].backbone.model.named_parameters() if name not in head]


def test_the_mean_of_full_experts_is_the_mean_of_their_weights(mood, kind):
    body = body_of(mood, kind)
    body.apply(Recipe("linear", (1.0, 3.0)))
    found = weights_of(body.heads[0].backbone.model)
    one, other = tuned_weights(mood), tuned_weights(kind)
    for name in below(body):
        torch.testing.assert_close(found[name], 0.25 * one[name] + 0.75 * other[name], atol=1e-6, rtol=1e-5)


def test_each_task_keeps_its_head_on_one_body(mood, kind):
    body = body_of(mood, kind)
    body.apply(Recipe("task_arithmetic", (0.5, 0.5)))
    assert [head.name for head in body.heads] == ["mood", "kind"]
    models = [head.backbone.model for head in body.heads]
    for folder, model, head in zip((mood, kind), models, body.heads, strict=True):
        own = tuned_weights(folder)
        for name in head.names:
            torch.testing.assert_close(weights_of(model)[name], own[name])
    first, second = (dict(model.named_parameters()) for model in models)
    assert all(first[name].data_ptr() == second[name].data_ptr() for name in below(body))


def test_experts_of_one_task_share_the_average_of_their_heads(mood, make_run):
    again = make_run("again", ("neg", "pos"), seed=3)
    body = body_of(mood, again)
    body.apply(Recipe("linear", (1.0, 3.0)))
    (head,) = body.heads
    one, other = tuned_weights(mood), tuned_weights(again)
    for name in head.names:
        expected = 0.25 * one[name] + 0.75 * other[name]
        torch.testing.assert_close(weights_of(head.backbone.model)[name], expected)
    assert "averaged by their weights" in body.notes[0]


@pytest.mark.parametrize("method", ["lora(rank=2)", "dora(rank=2)", "ia3", "bitfit", "ln_tune", "loha(r=2)"])
def test_every_change_of_weights_can_be_an_expert(method, mood, make_run):
    """Alone with weight 1 it is the merged model of the method itself."""
    other = make_run("other", ("no", "yes"), method, noise=0.2, seed=2)
    body = body_of(mood, other)
    body.apply(Recipe("task_arithmetic", (0.0, 1.0)))
    found, expected = weights_of(body.heads[1].backbone.model), tuned_weights(other)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5)
    body.apply(Recipe("task_arithmetic", (0.3, 0.3)))
    body.apply_expert(1)
    again = weights_of(body.heads[1].backbone.model)
    for name, value in expected.items():
        torch.testing.assert_close(again[name], value, atol=1e-5, rtol=1e-5)


def test_experts_in_memory_share_the_base_that_they_leave_as_it_is(lora, make_run):
    other = make_run("other_lora", ("low", "high"), "lora(rank=2)", seed=8)
    body = body_of(lora, other)
    first, second = (dict(expert.kept.backbone.model.named_parameters()) for expert in body.experts)
    name = "bert.encoder.layer.0.attention.self.query.weight"
    assert first[name].data_ptr() == second[name].data_ptr()


@pytest.mark.parametrize(("how", "density"), [("task_arithmetic", 1.0), ("linear", 1.0), ("ties", 0.2)])
def test_compressed_experts_are_merged_by_looking_signs_up(how, density, mood, kind, tmp_path, monkeypatch):
    """The same as merging what they decompress to, and without a dense change of any."""
    for folder in (mood, kind):
        compress_folder(folder, tmp_path / f"{folder.name}.dpz", 0.2, options=Options(with_scores=False))
    files = [tmp_path / "mood.dpz", tmp_path / "kind.dpz"]
    recipe = Recipe(how, (1.0, 0.5), density)
    body = body_of(*files)
    dense = {one.name: one.change for one in combined([_dense(one) for one in body.experts], recipe, body.names)}
    ternary = [name for name in body.names if all(name in expert.signs for expert in body.experts)]
    assert len(ternary) >= 12
    monkeypatch.setattr(combine.Expert, "deltas", property(lambda self: 1 / 0), raising=False)
    for name in ternary:
        with monkeypatch.context() as patch:
            patch.setattr(combine, "merged", lambda *a: _pointwise(*a))
            found = combine._ternary(body.experts, name, *recipe.of_those([0, 1]), recipe)
        assert found is not None
        off = ~torch.isclose(found.change, dense[name].float(), atol=1e-7, rtol=1e-5)
        assert int(off.sum()) <= (2 if how == "ties" else 0)  # rounding of the density: one entry of each expert


def _pointwise(how, changes, weights, density, generator):
    from deltaproof.merging.rules import merged

    assert changes.shape == (2, 9)  # all pairs of signs, and no weight
    return merged(how, changes, weights, density, generator)


def _dense(expert):
    from dataclasses import replace

    return replace(expert, signs={})


def test_signs_that_are_looked_up_are_those_of_the_rule():
    signs = torch.randint(-1, 2, (3, 7, 5), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    scales = [0.5, 2.0, 1.25]
    changes = signs * torch.tensor(scales)[:, None, None]
    found = looked_up([lambda one=one: one for one in signs], scales, lambda x: x.prod(0) + x.sum(0))
    torch.testing.assert_close(found, changes.prod(0) + changes.sum(0))


def test_cosines_are_the_same_from_signs_and_from_dense_changes(mood, kind, tmp_path):
    for folder in (mood, kind):
        compress_folder(folder, tmp_path / f"{folder.name}.dpz", 0.3, options=Options(with_scores=False))
    body = body_of(tmp_path / "mood.dpz", tmp_path / "kind.dpz")
    from_signs = cosines(body.experts, body.names)
    dense = cosines([_dense(one) for one in body.experts], body.names)
    assert from_signs[0][0] == pytest.approx(1)
    assert from_signs[0][1] == pytest.approx(dense[0][1], abs=1e-5)


def adapters(base, tmp_path, n=2):
    """LoRA as peft saves it, drawn by hand: folders without heads for peft, which merges no heads, and with, for us."""
    plain, whole = [], []
    for at in range(n):
        torch.manual_seed(at)
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
        config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=["query", "value", "dense"])
        wrapped = peft.get_peft_model(model, config)
        with torch.no_grad():
            for name, parameter in wrapped.named_parameters():
                if "lora_" in name:
                    parameter.copy_(0.2 * torch.randn(parameter.shape))
        wrapped.save_pretrained(tmp_path / f"plain{at}")
        shutil.copytree(tmp_path / f"plain{at}", tmp_path / f"whole{at}")
        file = tmp_path / f"whole{at}" / "adapter_model.safetensors"
        head = {f"base_model.model.classifier.{name}": value for name, value in model.classifier.state_dict().items()}
        save_file({**load_file(file), **head}, file)
        plain.append(tmp_path / f"plain{at}")
        whole.append(tmp_path / f"whole{at}")
    return plain, whole


@pytest.mark.parametrize(
    ("how", "theirs", "density"), [("svd", "svd", 1.0), ("ties", "ties_svd", 0.4), ("ties", "ties_svd", 1.0)]
)
def test_a_merge_that_is_cut_to_a_rank_is_pefts(how, theirs, density, base, tmp_path):
    folders, whole = adapters(base, tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    wrapped = peft.PeftModel.from_pretrained(model, folders[0], adapter_name="a")
    wrapped.load_adapter(folders[1], adapter_name="b")
    wrapped.add_weighted_adapter(["a", "b"], [1.0, 0.6], "m", theirs, svd_rank=4, density=density)
    body = body_of(*whole, base=base)
    body.apply(Recipe(how, (1.0, 0.6), density, rank=4))
    found = weights_of(body.heads[0].backbone.model)
    checked = 0
    before = open_model(str(base))
    for path, module in wrapped.base_model.model.named_modules():
        if hasattr(module, "get_delta_weight") and "classifier" not in path:
            short = path.removeprefix("bert.")
            stored = next(name for name in before if name.endswith(f"{short}.weight"))
            torch.testing.assert_close(
                found[f"{path}.weight"] - before[stored], module.get_delta_weight("m").detach(), atol=2e-5, rtol=1e-3
            )
            checked += 1
    assert checked >= 8


def test_pefts_linear_merge_of_factors_is_not_the_merge_of_the_updates(base, tmp_path):
    """A trap that the documentation names: only where all factors but one are zero do the two agree."""
    folders, _ = adapters(base, tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    wrapped = peft.PeftModel.from_pretrained(model, folders[0], adapter_name="a")
    wrapped.load_adapter(folders[1], adapter_name="b")
    wrapped.add_weighted_adapter(["a", "b"], [0.5, 0.5], "m", "linear")
    layer = wrapped.base_model.model.bert.encoder.layer[0].attention.self.query
    ours = 0.5 * (layer.get_delta_weight("a") + layer.get_delta_weight("b"))
    assert (layer.get_delta_weight("m") - ours).norm() > 0.3 * ours.norm()


def same_body(first, second):
    """Whether two sets of experts merge to one body."""
    for body in (first, second):
        body.apply(Recipe("task_arithmetic", (0.5, 1.0)))
    one, other = (weights_of(body.heads[1].backbone.model) for body in (first, second))
    assert not torch.equal(one[below(first)[5]], open_model(str(first.sources[0].base))[below(first)[5][5:]])
    for name, value in one.items():
        torch.testing.assert_close(value, other[name])


def test_a_compressed_lora_is_the_expert_that_it_decompresses_to(mood, lora, tmp_path):
    compress_folder(lora, tmp_path / "lora.dpz", 0.5, options=Options(with_scores=False))
    decompress(tmp_path / "lora.dpz", tmp_path / "folder")
    same_body(body_of(mood, tmp_path / "lora.dpz"), body_of(mood, tmp_path / "folder"))


@pytest.mark.parametrize("kind", ["lora", "ia3"])
def test_adapters_of_pefts_are_experts_packed_or_not(kind, mood, base, tmp_path):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    roles = {"target_modules": ["query", "intermediate.dense"]}
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, **roles) if kind == "lora" else peft.IA3Config(
        task_type="SEQ_CLS", feedforward_modules=["intermediate.dense"], **roles
    )  # fmt: skip
    wrapped = peft.get_peft_model(model, config)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn(parameter.shape)
    wrapped.save_pretrained(tmp_path / "adapter")
    body = body_of(mood, tmp_path / "adapter")
    assert [head.task.n_outputs for head in body.heads] == [2, 3]
    body.apply(Recipe("task_arithmetic", (0.0, 1.0)))
    expected, found = weights_of(wrapped.merge_and_unload()), weights_of(body.heads[1].backbone.model)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-5)
    compress_folder(tmp_path / "adapter", tmp_path / "adapter.dpz", 0.6, options=Options(with_scores=False))
    decompress(tmp_path / "adapter.dpz", tmp_path / "again")
    same_body(body_of(mood, tmp_path / "adapter.dpz"), body_of(mood, tmp_path / "again"))


@pytest.mark.parametrize("family", ["gpt2", "modernbert", "distilbert"])
def test_fused_and_transposed_weights_are_merged_in_their_places(family, make_run, tmp_path):
    base = save_tiny(family, tmp_path / family)
    one = make_run(f"{family}-one", ("neg", "pos"), seed=1, base=base)
    other = make_run(f"{family}-other", ("no", "yes"), "lora(rank=2)", noise=0.3, seed=2, base=base)
    body = body_of(one, other)
    body.apply(Recipe("task_arithmetic", (0.5, 2.0)))
    found = weights_of(body.heads[0].backbone.model)
    first, second = tuned_weights(one), tuned_weights(other)
    untuned = weights_of(load_tuned(other / "best")[0].detach())
    for name in below(body):
        expected = untuned[name] + 0.5 * (first[name] - untuned[name]) + 2 * (second[name] - untuned[name])
        torch.testing.assert_close(found[name], expected, atol=1e-5, rtol=1e-4)


def test_experts_of_different_bases_are_refused_before_anything_is_opened(mood, make_run, tmp_path):
    other = save_tiny("bert", tmp_path / "other", seed=1)
    stranger = make_run("stranger", ("neg", "pos"), seed=4, base=other)
    with pytest.raises(ConfigError, match=r"of one base, .* with fingerprint .*; merge those of one base"):
        look_at([mood, stranger])


def test_what_cannot_be_merged_says_why(mood, make_run, base):
    prefix = make_run("prefix", ("no", "yes"), "prefix(length=2)")
    with pytest.raises(ConfigError, match="only changes of weights and biases can be merged"):
        body_of(mood, prefix)
    head = make_run("head", ("no", "yes"), "head")
    with pytest.raises(ConfigError, match="must change weights below its head, `head` of"):
        body_of(mood, head)
    with pytest.raises(ConfigError, match="at least 2 experts, got 1"):
        look_at([mood])
    with pytest.raises(ConfigError, match="twice; give it a larger weight"):
        look_at([mood, mood])
    with pytest.raises(ConfigError, match="one weight for each of 2 experts, got 3"):
        Recipe("ties", (1, 2, 3)).check(2)
    with pytest.raises(ConfigError, match="got `tise`; did you mean `ties`"):
        Recipe("tise", (1, 2)).check(2)
    with pytest.raises(ConfigError, match="a density is for ties, dare, dare_ties"):
        Recipe("linear", (1, 2), 0.5).check(2)
    with pytest.raises(ConfigError, match="must not be 0"):
        Recipe("linear", (1, -1)).check(2)
    with pytest.raises(ConfigError, match="`svd` cuts every matrix to a rank"):
        Recipe("svd", (1, 1)).check(2)


def test_a_whole_model_of_elsewhere_needs_its_base_named(mood, kind, base, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(mood / "best")
    model.save_pretrained(tmp_path / "hand")
    with pytest.raises(ConfigError, match="does not say which model it was tuned from; name it with `--base`"):
        look_at([tmp_path / "hand", kind])
    body = body_of(tmp_path / "hand", kind, base=base)
    body.apply(Recipe("linear", (1.0, 0.0)))
    found, own = weights_of(body.heads[0].backbone.model), weights_of(model)
    for name in own:
        torch.testing.assert_close(found[name], own[name], atol=1e-6, rtol=1e-5)


def test_dare_draws_the_same_for_the_same_seed(mood, kind):
    body = body_of(mood, kind)

    def merged(seed):
        body.apply(Recipe("dare", (1.0, 1.0), 0.5, seed=seed))
        return weights_of(body.heads[0].backbone.model)[below(body)[8]]

    first = merged(0)
    assert torch.equal(first, merged(0))
    assert not torch.equal(first, merged(1))
