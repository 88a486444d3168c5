"""Every registered method keeps the contract on every kind of weight: plain, transposed, grouped, fused."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from deltaproof.backbones import TINY_FAMILIES, Site, tiny_backbone
from deltaproof.errors import ConfigError
from deltaproof.methods import METHODS, Method, method_from
from deltaproof.methods.dora import Decomposed
from deltaproof.methods.lora import LowRank
from deltaproof.methods.tuned import attach
from deltaproof.testing import CHECKS, Bench
from deltaproof.testing.examples import example

FAMILIES = ("bert", "gpt2", "llama", "modernbert")


def contestants() -> list[Method]:
    plain = [example(name) for name in METHODS]
    with_dropout = ("lora(rank=4, dropout=0.3, rank_stabilised=True)", "dora(dropout=0.3, roles=['query', 'ffn_out'])")
    return [*plain, *map(method_from, with_dropout)]


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", contestants(), ids=lambda method: method.label)
def test_every_method_keeps_the_contract(method, family, check):
    check(method, Bench(family))


@pytest.mark.parametrize("family", [name for name in TINY_FAMILIES if name not in FAMILIES])
@pytest.mark.parametrize("text", ["lora", "dora", "ia3", "bitfit", "ln_tune"])
def test_merged_and_attached_agree_in_every_family(text, family):
    CHECKS["merged_it_answers_the_same"](method_from(text), Bench(family))
    CHECKS["a_step_lowers_the_loss"](method_from(text), Bench(family))


def bert(d: int = 32, ffn: int = 48, layers: int = 2, heads: int = 4, tokens: int = 128) -> dict[str, int]:
    """Parameters of the tiny BERT that each method trains, by the formula that its class states, reckoned by hand."""
    sides = 4 * (d + d) + (d + ffn) + (ffn + d)
    norms = 1 + 2 * layers  # after the embeddings, and two per layer
    outputs = 5 * d + ffn
    bottleneck = d // 16
    return {
        "attn_scale": layers * heads * tokens**2,
        "attn_scale(tokens=16, share_heads=True)": layers * 16**2,
        "bitfit": layers * outputs + norms * d + d,  # the last one is the pooler's
        "deep_prompt": layers * 10 * d,
        "density_penalty(lora(rank=4))": layers * 4 * sides,
        "difffit": layers * outputs + norms * 2 * d + d + layers * 2 * d,
        "direft": layers * (2 * 4 * d + 4),
        "direft(tied=False)": 2 * layers * (2 * 4 * d + 4),
        "domain_residual": layers * 2 * d,
        "dora(rank=4)": layers * (4 * sides + outputs),
        "head": 0,
        "ia3": layers * (d + d + ffn),
        "ln_tune": norms * 2 * d,
        "ln_tune(layers=[1])": 2 * 2 * d,
        "lora(rank=4)": layers * 4 * sides,
        "loreft": layers * (2 * 4 * d + 4),
        "on_layers(lora(rank=4), [1])": 4 * sides,
        "only(dora(rank=2), ['value', 'ffn_out'])": layers * (2 * (d + d) + d + 2 * (ffn + d) + d),
        "parallel": layers * (2 * d * bottleneck + bottleneck + d),
        "peft_lora(r=4, target_modules=['query'])": layers * 4 * (d + d),
        "pica(rank=4)": 4 * (3 * d + ffn + d),
        "pica(rank=4, share=False)": layers * 4 * (3 * d + ffn + d),
        "prefix": layers * 2 * 20 * d,
        "prefix(bottleneck=3)": 20 * d + (d + 1) * 3 + layers * 2 * (3 + 1) * d,
        "serial": layers * (2 * d * bottleneck + bottleneck + d),
        "serial(placement='houlsby')": 2 * layers * (2 * d * bottleneck + bottleneck + d),
        "ssf": layers * 2 * outputs + norms * 2 * d,
        "ssf(shift=False)": layers * outputs + norms * d,
        "together(lora(rank=4), ln_tune)": layers * 4 * sides + norms * 2 * d,
        "vera(rank=8)": layers * (6 * 8 + outputs),
    }


@pytest.mark.parametrize("text", bert())
def test_the_number_of_trained_parameters_is_that_of_the_formula(text):
    tuned = attach(tiny_backbone("bert"), method_from(text))
    classifier = 2 * 32 + 2
    assert tuned.n_trainable == bert()[text] + classifier


def test_the_formula_of_every_method_is_checked():
    assert {text.partition("(")[0] for text in bert()} == set(METHODS) - {"full", "peft"} | {"peft_lora"}


def test_full_fine_tuning_trains_every_parameter():
    backbone = tiny_backbone("gpt2")
    everything = sum(parameter.numel() for parameter in backbone.model.parameters())
    assert attach(backbone, method_from("full")).n_trainable == everything


def test_the_reachable_set_of_lora_has_the_dimension_of_rank_r_matrices():
    """m x n matrices of rank r form a manifold of dimension r (m + n - r), measured here as the rank of a Jacobian."""
    torch.manual_seed(0)
    a, b = torch.randn(3, 6, dtype=torch.double), torch.randn(5, 3, dtype=torch.double)
    jacobian = torch.autograd.functional.jacobian(lambda a, b: b @ a, (a, b))
    measured = torch.linalg.matrix_rank(torch.cat([part.reshape(30, -1) for part in jacobian], dim=1))
    edit = LowRank(Site("here", "query", 0, 6, 5), rank=3, scale=1.0, dropout=0.0)
    assert edit.reachable_dimension() == int(measured) == 3 * (6 + 5 - 3)


def test_the_reachable_set_of_dora_adds_the_lengths():
    torch.manual_seed(0)
    w, m = torch.randn(5, 7, dtype=torch.double), torch.rand(5, dtype=torch.double)
    a, b = torch.randn(2, 7, dtype=torch.double), torch.randn(5, 2, dtype=torch.double)

    def weight(a, b, m):
        return m[:, None] * (w + b @ a) / (w + b @ a).norm(dim=1, keepdim=True)

    jacobian = torch.autograd.functional.jacobian(weight, (a, b, m))
    measured = torch.linalg.matrix_rank(torch.cat([part.reshape(35, -1) for part in jacobian], dim=1))
    edit = Decomposed(Site("here", "query", 0, 7, 5), rank=2, scale=1.0, dropout=0.0)
    assert edit.reachable_dimension() == int(measured) == 2 * (7 + 5 - 2) + 5


def test_methods_that_start_alike_start_with_the_same_values():
    """So that comparing two scales of LoRA is a comparison in pairs."""
    small, large = (attach(tiny_backbone("bert"), method_from(f"lora(alpha={alpha})"), seed=3) for alpha in (1, 64))
    assert all(torch.equal(value, large.state()[name]) for name, value in small.state().items())


def test_the_same_site_starts_alike_whatever_other_sites_there_are():
    whole = attach(tiny_backbone("bert"), method_from("lora(rank=4)")).state()
    part = attach(tiny_backbone("bert"), method_from("lora(rank=4, layers=[1], roles=['value'])")).state()
    assert all(torch.equal(value, whole[name]) for name, value in part.items())


def test_bitfit_says_what_it_trains_where_there_are_no_biases():
    llama, bert_ = tiny_backbone("llama"), tiny_backbone("bert")
    assert method_from("bitfit").notes(bert_) == []
    assert method_from("bitfit").notes(llama) == [
        "tiny-llama has no biases: bitfit trains new ones on its linear layers, zero at the start"
    ]


def test_bitfit_finds_the_biases_that_deberta_calls_otherwise():
    names = attach(tiny_backbone("deberta"), method_from("bitfit")).trained()
    assert sum(name.endswith((".q_bias", ".v_bias")) for name in names) == 4


def test_a_method_that_is_no_change_of_weights_is_not_merged():
    tuned = attach(tiny_backbone("llama"), method_from("bitfit"))
    with pytest.raises(ConfigError, match=r"only changes of weights and biases .* `bitfit` is more; keep it attached"):
        tuned.merge()


def test_a_state_of_another_method_is_refused():
    state = attach(tiny_backbone("bert"), method_from("ia3")).state()
    with pytest.raises(ConfigError, match="must hold the tensors that `lora` trains on tiny-bert"):
        attach(tiny_backbone("bert"), method_from("lora")).load_state(state)


def test_a_state_of_another_shape_is_refused():
    state = attach(tiny_backbone("bert"), method_from("lora(rank=2)")).state()
    with pytest.raises(ConfigError, match=r"must have the shape \(4, 32\), got \(2, 32\)"):
        attach(tiny_backbone("bert"), method_from("lora(rank=4)")).load_state(state)


OTHERWISE = {"rank_stabilised": True, "initial": "bert", "projection_seed": 1}


@pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if kind.costless])
def test_what_is_called_costless_changes_no_operation_and_no_byte(name):
    bench, plain = Bench("bert"), example(name)
    fields = {field: OTHERWISE.get(field) or 2 * getattr(plain, field) + 0.01 for field in plain.costless}
    found = []
    for method in (plain, plain.replace(**fields)):
        backbone = bench.backbone()
        tuned = attach(backbone, method)
        with FlopCounterMode(display=False) as counter:
            tuned(**bench.batch(backbone)).logits.sum().backward()
        bytes_stored = sum(value.nbytes for value in tuned.state().values())
        found.append((counter.get_total_flops(), tuned.n_trainable, bytes_stored, method.notes(backbone)))
    assert found[0] == found[1]
