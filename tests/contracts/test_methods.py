"""Every registered method keeps the contract on every kind of weight: plain, transposed, grouped, fused."""

import pytest
import torch

from deltaproof.backbones import TINY_FAMILIES, Site, tiny_backbone
from deltaproof.errors import ConfigError
from deltaproof.methods import METHODS, Method, method_from
from deltaproof.methods.dora import Decomposed
from deltaproof.methods.lora import LowRank
from deltaproof.methods.tuned import attach
from deltaproof.testing import CHECKS, Bench

FAMILIES = ("bert", "gpt2", "llama", "modernbert")
FIELDS = {
    "peft": {"type": "vera", "config": {"r": 4}},
    "pica": {"rank": 4},
    "density_penalty": {"inner": "lora(rank=2)"},
    "together": {"methods": ["lora(rank=2)", "ln_tune"]},
    "on_layers": {"inner": "together(lora(rank=2), bitfit)", "layers": [1]},
    "only": {"inner": "dora(rank=2)", "roles": ["value", "ffn_out"]},
}
"""Settings of methods that need some."""


def contestants() -> list[Method]:
    plain = [kind(**FIELDS.get(name, {})) for name, kind in METHODS.items()]
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


def bert(width: int = 32, ffn: int = 48, layers: int = 2) -> dict[str, int]:
    """Parameters of the tiny BERT (width 32, 48 in between, two layers) that each method trains, by hand."""
    per_layer = 4 * (width + width) + (width + ffn) + (ffn + width)
    norms = 2 * width * (1 + 2 * layers)  # after the embeddings, and two per layer
    biases = layers * (4 * width + ffn + width) + norms // 2 + width  # linear maps, norms, pooler
    return {
        "head": 0,
        "lora(rank=4)": layers * 4 * per_layer,
        "dora(rank=4)": layers * (4 * per_layer + 5 * width + ffn),
        "ia3": layers * (width + width + ffn),
        "ln_tune": norms,
        "bitfit": biases,
        "ln_tune(layers=[1])": 2 * 2 * width,
        "peft_lora(r=4, target_modules=['query'])": layers * 4 * (width + width),
    }


@pytest.mark.parametrize("text", bert())
def test_the_number_of_trained_parameters_is_that_of_the_formula(text):
    tuned = attach(tiny_backbone("bert"), method_from(text))
    classifier = 2 * 32 + 2
    assert tuned.n_trainable == bert()[text] + classifier


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
