"""Methods made of methods, and roles that a method cannot take: refused with the rule, before anything is changed."""

import pytest

from deltaproof.backbones import tiny_backbone
from deltaproof.errors import ConfigError
from deltaproof.methods import method_from
from deltaproof.methods.tuned import attach


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
