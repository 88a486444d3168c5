"""Every method of the installed peft works whole, or is refused with an error that says why."""

import pytest
import torch

from deltaproof.backbones import TINY_FAMILIES, tiny_backbone
from deltaproof.errors import ConfigError
from deltaproof.methods import method_from
from deltaproof.methods.peft_bridge import Peft, peft_types
from deltaproof.methods.peft_kinds import REFUSED, config_kinds
from deltaproof.methods.tuned import attach
from deltaproof.seeding import seed_everything
from deltaproof.testing import CHECKS, Bench
from deltaproof.testing.examples import example

MAIN = [
    "peft_vera(r=8)", "loha(r=2)", "lokr(r=2)", "oft", "boft", "adalora", "prefix_tuning(num_virtual_tokens=4)",
    "prompt_tuning(num_virtual_tokens=4)", "p_tuning(num_virtual_tokens=4)", "peft_lora(r=4)", "peft_ia3",
    "trainable_tokens(token_indices=[0, 1, 2, 3], target_modules=['word_embeddings'])", "ln_tuning",
    "fourierft(n_frequency=50)", "miss(r=2)", "c3a(block_size=16)", "vblora(vector_length=16)", "road(group_size=16)",
    "shira(r=2)", "waveft(n_frequency=50)", "lily", "osf", "bone(r=2)",
]  # fmt: skip
MAIN = [text for text in MAIN if text.split("(")[0].removeprefix("peft_") in config_kinds()]


def works_whole(text: str, family: str) -> None:
    """Attach, train, store, put back, merge or take off: with equal answers all the way."""
    bench = Bench(family)
    method = method_from(text)
    tuned = attach(bench.backbone(), method)
    with torch.no_grad():
        seed_everything(0)
        before = float(bench.loss(tuned.eval()))
    bench.train(tuned, n_steps=20, learning_rate=method.grid_centre)
    seed_everything(0)
    with torch.no_grad():
        assert float(bench.loss(tuned.eval())) < before, "it does not learn"
    answers = bench.answers(tuned)
    state = {name: tensor.clone() for name, tensor in tuned.state().items()}
    again = attach(bench.backbone(), method)
    again.load_state(state)
    assert torch.equal(bench.answers(again), answers), "the state does not bring the answers back"
    if tuned.mergeable:
        with torch.no_grad():
            merged = tuned.merge().eval()(**bench.batch(tuned.backbone)).logits
        torch.testing.assert_close(merged, answers, rtol=1e-4, atol=1e-4)
        left = [type(module).__name__ for module in tuned.model.modules() if "peft" in type(module).__module__]
        assert not left, f"something of peft is left: {left}"


@pytest.mark.parametrize("text", MAIN)
def test_a_method_of_peft_works_whole(text):
    works_whole(text, "bert")


@pytest.mark.parametrize(
    "text", ["peft_vera(r=8)", "peft_lora(r=4)", "peft_ia3", "adalora", "prefix_tuning", "p_tuning"]
)
def test_those_that_take_transposed_weights_work_on_gpt2(text):
    works_whole(text, "gpt2")


PREFIX = "its prefixes stand in the cache, which transformers turns off where layers are recomputed"
BREAKS = {
    ("adamss", "moved_and_back_it_answers_the_same"): "it keeps a precision of its own, that of its first model",
    ("delora", "a_step_lowers_the_loss"): "its columns have a fixed length: the first step leaves zero by all of it",
    ("prefix_tuning", "recomputed_it_has_the_same_gradients"): PREFIX,
}
"""What peft's code does not keep of the contract, and why."""
DRAW_NOTHING = {
    "beft", "boft", "ia3", "ln_tuning", "miss", "oft", "osf", "psoft", "road", "supertuning", "trainable_tokens",
}  # fmt: skip
"""Methods that are the same for every seed."""


def refused(method: Peft, bench: Bench) -> str:
    try:
        attach(bench.backbone(), method)
    except ConfigError as error:
        return str(error)
    return ""


def keeps_the_contract_or_says_why_not(name: str, family: str) -> None:
    method, bench = example(f"peft_{name}"), Bench(family)
    if refusal := refused(method, bench):
        assert "must" in refusal
        assert "; " in refusal, "no remedy"
        pytest.skip(refusal)
    for check, holds in CHECKS.items():
        if (name, check) not in BREAKS:
            holds(method, bench)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("name", peft_types())
def test_every_method_of_peft_keeps_the_contract_or_says_why_not(name, family):
    keeps_the_contract_or_says_why_not(name, family)


@pytest.mark.parametrize(("name", "check"), BREAKS)
def test_what_peft_breaks_of_the_contract_is_broken_still(name, check):
    """So that an entry goes once peft's code keeps the check."""
    broken = []
    for family in ("bert", "llama"):
        try:
            CHECKS[check](example(name), Bench(family))
        except (AssertionError, RuntimeError):
            broken.append(family)
    assert broken


@pytest.mark.parametrize("name", [name for name in peft_types() if name != "shadow"])
def test_the_seed_reaches_every_method_that_draws(name):
    """Told by the answers after two steps: what SHiRA and WaveFT draw are places, which no state holds."""
    bench = Bench("bert")
    one, other = (bench.answers(bench.tuned(example(f"peft_{name}"), seed, n_steps=2)) for seed in (1, 2))
    assert torch.equal(one, other) == (name in DRAW_NOTHING)


@pytest.mark.parametrize("text", ["peft_lora(r=2)", "prompt_tuning(num_virtual_tokens=4)", "osf"])
def test_what_is_trained_in_place_beside_a_method_of_peft_stays_trained(text):
    """peft freezes the whole model when it wraps it."""
    alone = attach(tiny_backbone("bert"), method_from(text)).n_trainable
    norms = sum(p.numel() for name, p in tiny_backbone("bert").model.named_parameters() if "LayerNorm" in name)
    for both in (f"together({text}, ln_tune)", f"together(ln_tune, {text})"):
        assert attach(tiny_backbone("bert"), method_from(both)).n_trainable == alone + norms


@pytest.mark.slow
@pytest.mark.parametrize("family", [family for family in TINY_FAMILIES if family not in ("bert", "gpt2", "llama")])
@pytest.mark.parametrize("name", peft_types())
def test_every_method_of_peft_keeps_the_contract_in_every_family_or_says_why_not(name, family):
    keeps_the_contract_or_says_why_not(name, family)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "deberta-v2", "modernbert", "gpt2", "llama"])
@pytest.mark.parametrize("name", peft_types())
def test_every_method_of_peft_works_whole_or_says_why_not(name, family):
    try:
        works_whole(example(f"peft_{name}").label, family)
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_a_contestant_is_refused_with_the_reason(name):
    with pytest.raises(ConfigError, match=f"must learn one task by itself, `{name}` does not: .*; choose another"):
        method_from(name)
    assert name not in peft_types()


@pytest.mark.parametrize("text", ["prefix_tuning", "prompt_tuning(num_virtual_tokens=4)", "peft_vera", "oft"])
def test_taken_off_the_plain_model_is_left_with_the_trained_head(text):
    bench = Bench("bert")
    tuned = bench.tuned(method_from(text))
    head = {name: value.clone() for name, value in tuned.trained().items() if "classifier" in name}
    plain = tuned.detach()
    fresh = bench.backbone().model.state_dict()
    assert plain.state_dict().keys() == fresh.keys()
    for name, value in plain.state_dict().items():
        if name.startswith("classifier."):
            assert any(torch.equal(value, trained) for trained in head.values())
        else:
            torch.testing.assert_close(value, fresh[name], msg=name)


@pytest.mark.parametrize("text", ["prompt_tuning(num_virtual_tokens=4)", "lily"])
def test_what_is_more_than_weights_is_not_mergeable(text):
    assert not attach(tiny_backbone("bert"), method_from(text)).mergeable


def test_a_bias_merges_only_where_there_is_one():
    assert attach(tiny_backbone("bert"), method_from("beft")).mergeable
    assert not attach(tiny_backbone("llama"), method_from("beft")).mergeable


def test_the_head_is_no_target_of_peft():
    """`dense` names a layer of RoBERTa's head too, which is trained anyway."""
    tuned = attach(tiny_backbone("roberta"), method_from("peft_lora(r=2, target_modules=['dense'])"))
    assert not any("classifier" in name and "lora" in name for name in tuned.trained())


def test_a_model_that_peft_does_not_know_gets_targets_by_role():
    tuned = attach(tiny_backbone("smollm3"), method_from("loha(r=2)"))
    assert {name.split(".hada")[0].rpartition(".")[2] for name in tuned.trained() if "hada" in name} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip


def test_modules_that_the_user_wants_saved_are_trained_beside_the_head():
    names = attach(tiny_backbone("bert"), method_from("peft_vera(r=4, modules_to_save=['pooler'])")).trained()
    assert any("pooler" in name for name in names)
    assert any("classifier" in name for name in names)


def test_the_seed_reaches_what_peft_draws_by_itself():
    """VeRA's projections come from a key of their own, which the user may still set."""

    def projection(text, seed):
        tuned = attach(tiny_backbone("bert"), method_from(text), seed=seed)
        return next(value for name, value in tuned.model.named_buffers() if "vera_A" in name)

    assert torch.equal(projection("peft_vera(r=4)", 1), projection("peft_vera(r=4)", 1))
    assert not torch.equal(projection("peft_vera(r=4)", 1), projection("peft_vera(r=4)", 2))
    fixed = "peft_vera(r=4, projection_prng_key=7)"
    assert torch.equal(projection(fixed, 1), projection(fixed, 2))


def test_adalora_comes_down_to_its_budget_by_the_end():
    method = method_from("adalora(init_r=6, target_r=2, tinit=2, tfinal=4, deltaT=1)")
    bench = Bench("bert")
    tuned = attach(bench.backbone(), method)
    bench.train(tuned, n_steps=20, learning_rate=1e-2)
    values = [value for name, value in tuned.trained().items() if "lora_E" in name]
    assert sum(len(value) for value in values) == 6 * len(values)
    assert sum(int((value != 0).sum()) for value in values) == 2 * len(values)


def test_adaloras_penalty_is_the_one_that_peft_adds_to_its_own_loss():
    bench = Bench("bert")
    tuned = bench.tuned(method_from("adalora"))
    batch = bench.batch(tuned.backbone)
    with torch.no_grad():
        theirs = tuned.model(**batch, labels=torch.tensor([0, 1, 0, 1])).loss
        (penalty,) = [edit.penalty() for _, edit in tuned.placed()]
        torch.testing.assert_close(bench.loss(tuned) + penalty, theirs)


def test_a_value_that_no_plan_can_hold_is_refused():
    import peft

    with pytest.raises(ConfigError, match="a plan can hold plain values only"):
        Peft(peft.LoraConfig(target_modules=["query"], rank_pattern={"query": object()}))
