"""Methods made of methods, and roles that a method cannot take: refused with the rule, before anything is changed."""

import pytest
import torch

from deltaproof.backbones import tiny_backbone
from deltaproof.errors import ConfigError
from deltaproof.methods import method_from
from deltaproof.methods.tuned import attach
from deltaproof.testing.bench import Bench


@pytest.mark.parametrize("name", ["lora", "dora", "pica(rank=4)", "vera(rank=4)", "ia3"])
@pytest.mark.parametrize("role", ["norm", "layer", "attention", "activation", "embedding"])
def test_a_place_without_a_linear_map_is_refused_when_the_method_is_put_there(name, role):
    method = method_from(name).replace(roles=("query", role))
    with pytest.raises(ConfigError, match=f"cannot change a place of role `{role}`; name roles among query"):
        attach(tiny_backbone("gpt2"), method)


@pytest.mark.parametrize("inner", ["dora", "ssf", "ia3"])
def test_what_scales_a_weight_that_peft_has_wrapped_is_not_merged(inner):
    """Attached, the scale acts on the sum of weight and peft's change; folded apart, it would not."""
    tuned = attach(tiny_backbone("bert"), method_from(f"together({inner}, peft_lora)"))
    assert not tuned.mergeable
    with pytest.raises(ConfigError, match="keep it attached"):
        tuned.merge()


def test_two_methods_that_wrap_the_model_are_refused():
    with pytest.raises(ConfigError, match="one method at most may wrap the whole model"):
        attach(tiny_backbone("bert"), method_from("together(peft_lora, loha)"))


@pytest.mark.parametrize("text", ["together(3)", "density_penalty(3)", "on_layers([0], lora)"])
def test_what_is_no_method_is_refused_with_a_method_to_write(text):
    with pytest.raises(ConfigError, match="a method reads `name` or"):
        method_from(text)


def test_a_field_that_is_given_twice_is_refused():
    with pytest.raises(ConfigError, match="each field may be given once, got `inner` of `density_penalty` twice"):
        method_from("density_penalty(lora, inner=lora)")


@pytest.mark.parametrize("second", ["ia3", "prefix(length=2)", "full", "peft_lora(r=2)"])
@pytest.mark.parametrize("first", ["lora(rank=2)", "prefix(length=2)", "peft_lora(r=2)"])
def test_a_second_method_is_refused_until_the_first_is_taken_off(first, second):
    backbone = tiny_backbone("bert")
    tuned = attach(backbone, first)
    with pytest.raises(ConfigError, match=r"is attached to `.*` already; `detach\(\)` .* with `together\("):
        attach(backbone, second)
    tuned.detach()
    attach(backbone, second)


def test_merged_a_model_is_free_for_the_next_method():
    backbone = tiny_backbone("bert")
    attach(backbone, "lora(rank=2)").merge()
    assert attach(backbone, "ia3").method.label == "ia3"


@pytest.mark.parametrize("beside", ["serial(initial='bert')", "peft_lora(r=2, init_lora_weights=False)"])
def test_a_method_that_does_not_fit_leaves_nothing_of_its_parts_behind(beside):
    backbone = tiny_backbone("deberta-v2")  # whose attention is code of its own
    batch = Bench("deberta-v2").batch(backbone)
    with torch.no_grad():
        before = backbone.model.eval()(**batch).logits
        with pytest.raises(ConfigError, match="attention can be edited in models that"):
            attach(backbone, f"together({beside}, prefix(length=2))")
        assert torch.equal(backbone.model(**batch).logits, before)
    assert attach(backbone, "lora(rank=2)").method.label == "lora(rank=2)"


def test_a_method_may_be_given_as_one_types_it():
    assert attach(tiny_backbone("bert"), "lora(rank=2)").method == method_from("lora(rank=2)")


@pytest.mark.parametrize("text", ["lora", "peft_lora(r=4, target_modules=['query'])", "together(loha(r=2), ln_tune)"])
def test_equal_methods_have_equal_hashes(text):
    one, other = method_from(text), method_from(text)
    assert one == other
    assert len({one, other, method_from("head")}) == 2


@pytest.mark.parametrize("text", [
    "density_penalty(density_penalty(lora))", "together(density_penalty(lora), density_penalty(ia3))",
])  # fmt: skip
def test_a_density_is_penalised_once(text):
    with pytest.raises(ConfigError, match=r"one penalty of a kind .* two at bert\.encoder\.layer\.0\.\S+, .* `layers`"):
        attach(tiny_backbone("bert"), text)


def test_layers_may_have_penalties_of_their_own():
    tuned = attach(tiny_backbone("bert"), "density_penalty(density_penalty(lora, layers=[0]), layers=[1], strength=2)")
    bench = Bench()
    bench.objective(tuned.train()).backward()
    bench.loss(tuned)  # a penalty is given once
    penalties = [penalty for _, edit in tuned.placed() if (penalty := edit.penalty()) is not None]
    assert len(penalties) == 2


@pytest.mark.parametrize(("text", "message"), [
    ("only(density_penalty(lora), ['query'])",
     r"a density needs the role `activation`, .*; keep the method inside .*`density_penalty\(only\(lora, roles="),
    ("only(serial, ['query'])", r"must hold places that it uses, got query; name ffn_norm as well"),
    ("only(lora, ['norm'])", r"got norm; name one or more of query, key, value, .* as well"),
    ("on_layers(lora(layers=[0]), [1])", r"got \[1\], where it uses \[0\]; name layers that are in both"),
    ("on_layers(on_layers(lora, [0]), [1])", r"got \[1\], where it uses \[0\]; name layers that are in both"),
])  # fmt: skip
def test_a_method_kept_from_its_own_places_is_told_which_to_add(text, message):
    with pytest.raises(ConfigError, match=message):
        attach(tiny_backbone("bert"), text)
