"""What one writes down comes back as it was, and a wrong setting is refused with rule, value and remedy."""

import tomllib

import peft
import pytest

from deltaproof.backbones import tiny_backbone
from deltaproof.errors import ConfigError
from deltaproof.experiments.plan import plan_from
from deltaproof.methods import METHODS, method_from
from deltaproof.methods.describe import describe
from deltaproof.methods.peft_bridge import Peft, peft_types
from deltaproof.methods.tuned import attach

EXPRESSIONS = [
    "lora",
    "lora(rank=16, alpha=32.5, dropout=0.1, rank_stabilised=True)",
    "lora(roles=['query', 'value'], layers=[0, 1])",
    "dora(rank=2)",
    "ia3(roles=['key'])",
    "ln_tune(layers=[1])",
    "vera",
    "peft_vera",
    "peft_vera(r=64, target_modules=['query', 'it\\'s \"odd\"'], vera_dropout=0.1)",
    "peft_lora(r=4, use_rslora=True, target_modules='all-linear', rank_pattern={'query': 2})",
    "peft_ia3(init_ia3_weights=False)",
    "loha(rank_dropout=0.0, layers_to_transform=None)",
]


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_a_label_parses_to_an_equal_method(text):
    once = method_from(text)
    again = method_from(once.label)
    assert again == once
    assert again.label == once.label
    assert method_from(once.to_dict()) == once


def test_a_label_names_only_what_differs_from_the_defaults():
    assert method_from("lora(rank=8, alpha=4)").label == "lora(alpha=4.0)"
    assert method_from("lora(rank=8)").label == "lora"
    assert method_from("lora(layers=[1])").label == "lora(layers=[1])"


def test_pefts_own_lora_is_told_apart_from_ours():
    theirs = method_from("peft(type='lora', config={'r': 4})")
    assert theirs.label == "peft_lora(r=4)"
    assert theirs == Peft(peft.LoraConfig(r=4)) == method_from("peft_lora(r=4)")
    assert method_from("lora(rank=4)") != theirs


@pytest.mark.parametrize(
    ("config", "label"),
    [
        (peft.VeraConfig(r=64), "peft_vera(r=64)"),
        (peft.LoraConfig(task_type="SEQ_CLS", use_dora=True), "peft_lora(use_dora=True)"),
        (peft.LoraConfig(target_modules=["value", "query"]), "peft_lora(target_modules=['query', 'value'])"),
        (peft.AdaLoraConfig(total_step=100, target_r=4), "adalora(target_r=4, total_step=100)"),
        (peft.PromptTuningConfig(num_virtual_tokens=5), "prompt_tuning(num_virtual_tokens=5)"),
        (peft.OFTConfig(), "oft"),
    ],
)
def test_a_configuration_object_becomes_an_expression(config, label):
    assert Peft(config).label == label
    assert method_from(label) == Peft(config)


def test_a_plan_in_toml_comes_back_as_it_was():
    text = '\n'.join([
        'model = "m"', 'data = "d.csv"',
        'methods = ["full", "lora(rank=2, roles=[\'query\'])", {name = "ia3", roles = ["key"]}, "peft_vera(r=8)"]',
        "[training]", "epochs = 2", "[budget]", "trials = 3",
    ])  # fmt: skip
    plan = plan_from(tomllib.loads(text))
    assert plan.methods == ("full", "lora(rank=2, roles=['query'])", "ia3(roles=['key'])", "peft_vera(r=8)")
    again = plan_from({key: value for key, value in plan.model_dump(mode="json").items() if value is not None})
    assert again == plan
    assert again.contestants() == plan.contestants()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lorra", "no method is called `lorra`; did you mean `lora`"),
        ("lora(rnak=4)", "`lora` has no field `rnak`; did you mean `rank`?"),
        ("lora(rank=0)", r"`lora.rank`: input should be greater than or equal to 1, got 0"),
        ("lora(rank='many')", r"`lora.rank`: .*valid integer.*, got 'many'"),
        ("lora(dropout=1.0)", r"`lora.dropout`: input should be less than 1, got 1.0"),
        ("lora(8)", r"`lora` takes its settings by name, got \[8\]; write for example `lora\(rank=8\)`"),
        ("lora(rank=", r"a method reads `name` or `name\(field=value, …\)`, got `lora\(rank=`; write for example"),
        ("__import__('os').system('true')", "a method reads `name` or"),
        ("peft_vera(rank=4)", "peft's `vera` has no field `rank`; "),
        ("peft(type='lorra')", r"the installed `peft` has no method `lorra`; did you mean .*`lora`"),
        ("peft()", "`peft.type`: field required"),
        ("poly", "a contestant must learn one task by itself, `poly` does not: it needs the number of a task"),
        ("trainable_tokens", "`trainable_tokens` must be told its `token_indices`, got none; write"),
        ("adalora(total_step=-1)", r"peft refuses `adalora\(total_step=-1\)`: .*; change the field it names"),
    ],
)
def test_a_wrong_setting_is_refused_before_there_is_a_model(text, message):
    with pytest.raises(ConfigError, match=message):
        method_from(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lora(rank=33)", r"`rank <= min\(d_in, d_out\)` must hold at bert.*query, got 33 > 32; lower `rank`"),
        ("dora(rank=33)", r"`rank <= min\(d_in, d_out\)` must hold"),
        ("lora(layers=[2])", r"`0 <= layer < n_layers` must hold in `tiny-bert`, got layer 2 with n_layers 2; name"),
        ("lora(roles=['ffn_gate'])", "the roles must match at least one site of `tiny-bert`, got none for ffn_gate"),
        ("lora(roles=['qeury'])", "`role` must be one that models have, got `qeury`; did you mean `query`?"),
        ("ln_tune(layers=[7])", "got layer 7"),
        ("vera(rank=1025)", r"`rank <= d_in \* d_out` must hold at bert.*query, got 1025 > 1024, .*; lower `rank`"),
        ("prefix(length=129)", r"`length <= 128`, the most tokens that `tiny-bert` takes, must hold, got 129; lower"),
        ("deep_prompt(length=129)", r"`length <= 128`, .* got 129; lower `length`"),
        ("prompt_tuning(num_virtual_tokens=128)", r"num_virtual_tokens <= 128`, .* got 1 \+ 128; lower"),
        ("vblora", r"peft must be able to put `vblora` on this model, it says: .*vector_length.*; set the field"),
        ("peft_vera(target_modules=['nothing'])", r"peft must be able to put .*nothing.*; set the field"),
    ],
)
def test_a_setting_that_does_not_fit_the_model_is_refused_when_attached(text, message):
    with pytest.raises(ConfigError, match=message):
        attach(tiny_backbone("bert"), method_from(text))


def test_a_method_of_peft_that_would_change_nothing_is_refused():
    """OSF passes over GPT-2's transposed weights without a word."""
    with pytest.raises(ConfigError, match="must train something beside the head, `osf` finds nothing to train"):
        attach(tiny_backbone("gpt2"), method_from("osf"))


@pytest.mark.parametrize("name", [*METHODS, *peft_types()])
def test_every_method_can_be_described(name):
    facts = describe(name)
    assert facts["idea"]
    assert facts["equation"]
    assert all(field["type"] and "default" in field for field in facts["fields"])
    if name in METHODS and name != "peft":
        assert all(field["meaning"] for field in facts["fields"]), "a field without a docstring"
