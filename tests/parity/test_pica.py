"""PiCa is what its paper says: directions of the input, one matrix for all layers, and no way to load them wrongly."""

import copy
import subprocess
import sys

import numpy as np
import peft
import pytest
import torch
import torch.nn.functional as F
from by_hand import TASK, encoded, train_by_hand
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from deltaproof.backbones import Site, backbone_of, load_backbone, save_tiny, tiny_backbone, weight_of
from deltaproof.errors import ConfigError
from deltaproof.methods import decompositions, method_from
from deltaproof.methods.decompositions import _decomposed as decomposed
from deltaproof.methods.pica import InPrincipalSpan, principal_directions
from deltaproof.methods.tuned import attach
from deltaproof.records.spec import Spec
from deltaproof.saving.folder import load_tuned, save_tuned
from deltaproof.testing.bench import TEXTS, Bench

FAMILIES = ("bert", "gpt2", "llama", "modernbert")
PICA = "pica(rank=4)"


def trained(family="bert", text=PICA, n_steps=5):
    tuned = attach(tiny_backbone(family), method_from(text))
    Bench(family).train(tuned, n_steps, learning_rate=1e-2)
    return tuned.eval()


def answers(model, tokenizer):
    with torch.no_grad():
        return model.eval()(**tokenizer(list(TEXTS), padding=True, return_tensors="pt")).logits


def weight(tuned, site):
    return weight_of(tuned.backbone.module(site), site).detach()


def outside(delta, p):
    """Share of an update's length that lies outside of the span of the rows of p."""
    return float((delta - delta @ p.T @ p).norm() / delta.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_at_the_start_it_answers_like_the_base_to_the_bit(family, dtype):
    backbone = tiny_backbone(family)
    backbone.model.to(dtype)
    before = answers(backbone.model, backbone.tokenizer)
    assert torch.equal(answers(attach(backbone, method_from(PICA)), backbone.tokenizer), before)


@pytest.mark.parametrize("share", [True, False])
def test_it_trains_one_matrix_per_role_or_one_per_layer_and_nothing_else(share):
    tuned = attach(tiny_backbone("bert"), method_from(f"pica(rank=4, share={share})"))
    head = 2 * 32 + 2
    assert tuned.n_trainable == 4 * (3 * 32 + 48 + 32) * (1 if share else 2) + head
    assert tuned.n_trainable == tuned.reachable_dimension()
    edited = [name for name in tuned.trained() if not name.startswith("classifier")]
    assert len(edited) == (5 if share else 10)
    assert all(name.endswith("#0.m") for name in edited)


def test_a_worked_example():
    """W maps (3, .) and (., 2): its first direction is the first input, and M = (1, 10) adds to that column alone."""
    w, b = torch.tensor([[3.0, 0, 0], [0, 2.0, 0]]), torch.tensor([0.1, 0.2])
    edit = InPrincipalSpan(Site("here", "query", 0, 3, 2), torch.nn.Parameter(torch.tensor([[1.0], [10.0]])), False)
    edit.start(w, torch.Generator())
    x = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(edit.p, torch.tensor([[1.0, 0, 0]]))
    torch.testing.assert_close(
        F.linear(x, w, b) + edit.contribution(x, F.linear(x, w, b), w, b), torch.tensor([4.1, 14.2])
    )
    torch.testing.assert_close(w + edit.delta(w), torch.tensor([[4.0, 0, 0], [10.0, 2.0, 0]]))


@pytest.mark.parametrize("shape", [(5, 7), (7, 5), (6, 6), (48, 32), (32, 48), (64, 200), (200, 64)])
def test_the_directions_are_those_of_a_full_decomposition(shape):
    w = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    rank = min(shape) // 2
    p, values = principal_directions(w, rank)
    _, all_values, vh = torch.linalg.svd(w.double(), full_matrices=False)
    torch.testing.assert_close(values, all_values[: rank + 1], rtol=1e-9, atol=1e-9)
    cosines = (p.double() * vh[:rank]).sum(1)
    torch.testing.assert_close(cosines.abs(), torch.ones(rank, dtype=torch.double), rtol=0, atol=1e-6)
    torch.testing.assert_close(p @ p.T, torch.eye(rank), rtol=0, atol=1e-6)
    assert (p.gather(1, p.abs().argmax(1, keepdim=True)) > 0).all()


@pytest.mark.parametrize("shape", [(5, 9), (9, 5)])
def test_a_weight_of_deficient_rank_still_has_orthonormal_directions(shape):
    w = torch.zeros(shape)
    w[0, 0], w[1, 1] = 2.0, 1.0
    p, _ = principal_directions(w, 4)
    torch.testing.assert_close(p @ p.T, torch.eye(4), rtol=0, atol=1e-6)
    torch.testing.assert_close(p[:2], torch.eye(shape[1])[:2], rtol=0, atol=1e-6)


@pytest.mark.parametrize("how", ["fp32", "negated vectors", "transposed"])
def test_signs_do_not_depend_on_who_decomposes(how):
    """Whatever signs a decomposition gives, the fixed ones are the same."""
    w = torch.randn(24, 40, generator=torch.Generator().manual_seed(3))
    p, _ = principal_directions(w, 6)
    vh = {
        "fp32": lambda: torch.linalg.svd(w, full_matrices=False).Vh,
        "negated vectors": lambda: -torch.linalg.svd(w.double(), full_matrices=False).Vh,
        "transposed": lambda: torch.linalg.svd(w.double().T, full_matrices=False).U.T,
    }[how]()[:6].float()
    fixed = vh * vh.gather(1, vh.abs().argmax(1, keepdim=True)).sign()
    torch.testing.assert_close(p, fixed, rtol=0, atol=1e-4 if how == "fp32" else 1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_after_training_every_update_lies_in_the_span_of_the_inputs_directions(family):
    """And not in that of the outputs', which is what swapping the sides of the decomposition would give."""
    tuned = trained(family, n_steps=50)
    n_oblong = 0
    for site, edit in tuned.placed():
        w = weight(tuned, site)
        delta = edit.delta(w).detach()
        u, _, vh = torch.linalg.svd(w.double(), full_matrices=False)
        assert outside(delta, edit.p) < 1e-5
        assert outside(delta.double(), vh[:4]) < 1e-5
        if site.d_in != site.d_out:
            n_oblong += 1
            assert outside(delta.double().T, u[:, :4].T) > 0.1
    assert n_oblong >= 4


@pytest.mark.parametrize("family", FAMILIES)
def test_the_directions_are_orthonormal_and_never_move(family):
    tuned = attach(tiny_backbone(family), method_from(PICA))
    before = [edit.p.clone() for edit in tuned.edits]
    for p in before:
        torch.testing.assert_close(p @ p.T, torch.eye(4), rtol=0, atol=1e-5)
    Bench(family).train(tuned, 5, learning_rate=1e-2)
    assert all(torch.equal(edit.p, p) and not edit.p.requires_grad for edit, p in zip(tuned.edits, before, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_of_a_shared_matrix_is_the_sum_over_its_layers(family):
    """sum_i (dL/dW_i) P_i^T, from the gradients of the weights themselves, and as the unshared matrices have it."""
    bench = Bench(family)
    shared, apart = trained(family, n_steps=3), attach(tiny_backbone(family), method_from("pica(rank=4, share=False)"))
    with torch.no_grad():
        for (_, one), (_, own) in zip(shared.placed(), apart.placed(), strict=True):
            own.m.copy_(one.m)
    for path in shared.backbone.head:
        apart.backbone.module(path).load_state_dict(shared.backbone.module(path).state_dict())
    bench.loss(shared).backward()
    bench.loss(apart).backward()
    plain = tiny_backbone(family)
    model = attach(plain, method_from("full"))
    model.backbone.model.load_state_dict(copy.deepcopy(shared).merge().state_dict())
    bench.loss(model.eval()).backward()
    for role in method_from(PICA).roles:
        placed = [(site, one, own) for (site, one), own in zip(shared.placed(), apart.edits, strict=True)
                  if site.role == role]  # fmt: skip
        if not placed:
            continue
        m = placed[0][1].m
        assert all(one.m is m for _, one, _ in placed)
        torch.testing.assert_close(m.grad, sum(own.m.grad for *_, own in placed), rtol=1e-4, atol=1e-6)
        by_hand = sum(_gradient(plain, site) @ one.p.T for site, one, _ in placed)
        torch.testing.assert_close(m.grad, by_hand, rtol=1e-3, atol=1e-5)


def _gradient(backbone, site):
    gradient = backbone.module(site).weight.grad
    gradient = gradient.T if site.transposed else gradient
    return gradient[slice(*site.rows)] if site.rows else gradient


def test_a_shared_matrix_changes_every_layer_of_its_role_and_no_other():
    tuned = trained()
    before = [edit.delta(None).detach() for edit in tuned.edits]
    with torch.no_grad():
        next(edit for site, edit in tuned.placed() if site.role == "value").m.add_(1)
    moved = {(site.role, site.layer) for (site, edit), old in zip(tuned.placed(), before, strict=True)
             if not torch.equal(edit.delta(None), old)}  # fmt: skip
    assert moved == {("value", 0), ("value", 1)}


def test_with_one_layer_sharing_makes_no_difference():
    """Names, values and answers, over a training."""
    one, other = (trained(text=f"pica(rank=4, layers=[1], share={share})", n_steps=5) for share in (True, False))
    assert all(torch.equal(value, other.state()[name]) for name, value in one.state().items())
    assert one.state().keys() == other.state().keys()


@pytest.mark.parametrize(
    ("dtype", "tolerance", "of_answers"), [(torch.float32, 1e-6, 2e-6), (torch.bfloat16, 4e-3, 0.15)]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_merged_and_taken_out_again_the_weights_are_the_old_ones(family, dtype, tolerance, of_answers):
    backbone = tiny_backbone(family)
    backbone.model.to(dtype)
    tuned = attach(backbone, method_from(PICA))
    Bench(family).train(tuned, 5, learning_rate=1e-3)
    placed = [(site, edit.delta(None).detach(), weight(tuned, site).clone()) for site, edit in tuned.placed()]
    attached = answers(tuned, backbone.tokenizer).float()
    plain = tuned.merge()
    torch.testing.assert_close(answers(plain, backbone.tokenizer).float(), attached, rtol=0, atol=of_answers)
    assert {type(plain.get_submodule(site.path)).__name__ for site, *_ in placed} <= {"Linear", "Conv1D"}
    for site, delta, w in placed:
        back = weight_of(plain.get_submodule(site.path), site).detach().float() - delta
        torch.testing.assert_close(back, w.float(), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("family", "text"),
    [("bert", PICA), ("gpt2", PICA), ("modernbert", PICA), ("bert", "pica(rank=4, share=False, layers=[1])")],
)
def test_peft_loads_it_as_a_lora_with_equal_answers(tmp_path, family, text):
    base = save_tiny(family, tmp_path / "base")
    tuned = _tuned_on(base, text)
    save_tuned(tuned, TASK, _spec(base, tuned), tmp_path / "tuned")
    tokenizer = tuned.backbone.tokenizer
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    plain.config.pad_token_id = tokenizer.pad_token_id
    theirs = peft.PeftModel.from_pretrained(plain, tmp_path / "tuned")
    torch.testing.assert_close(answers(theirs, tokenizer), answers(tuned, tokenizer), rtol=0, atol=1e-6)


def _tuned_on(base, text):
    backbone = load_backbone(str(base), "classification", 2, labels=TASK.labels)
    tuned = attach(backbone, method_from(text))
    Bench(backbone.family).train(tuned, 10, learning_rate=1e-2)
    return tuned.eval()


def _spec(base, tuned):
    model = {"name": str(base), "fingerprint": tuned.backbone.fingerprint, "revision": ""}
    return Spec(tuned.method.label, tuned.method.to_dict(), model, TASK.to_json(), {}, {}, seed=0, stage="final")


SCRIPT = """
import sys, numpy as np, torch
from pathlib import Path
from deltaproof.saving.folder import load_tuned
from deltaproof.testing.bench import TEXTS
for folder in sys.argv[1:]:
    tuned, *_ = load_tuned(Path(folder))
    with torch.no_grad():
        logits = tuned(**tuned.backbone.tokenizer(list(TEXTS), padding=True, return_tensors="pt")).logits
    np.save(Path(folder) / "answers.npy", logits.numpy())
"""


def test_a_fresh_process_answers_to_the_bit(tmp_path):
    wanted = {}
    for number, text in enumerate((PICA, "pica(rank=4, share=False)", "pica(rank=4, save_projection=True)")):
        base = save_tiny("bert", tmp_path / f"base{number}")
        tuned = _tuned_on(base, text)
        folder = tmp_path / f"tuned{number}"
        save_tuned(tuned, TASK, _spec(base, tuned), folder)
        wanted[folder] = answers(tuned, tuned.backbone.tokenizer).numpy()
    subprocess.run([sys.executable, "-c", SCRIPT, *map(str, wanted)], check=True, timeout=300)
    for folder, logits in wanted.items():
        np.testing.assert_array_equal(np.load(folder / "answers.npy"), logits)
    sizes = [sum(t.numel() for t in load_file(folder / "deltaproof.safetensors").values()) for folder in wanted]
    head, fingerprints = 2 * 32 + 2, 10 * 2 * 4
    assert sizes[0] == 4 * (4 * 32 + 48) + head + fingerprints
    assert sizes[2] == 4 * (4 * 32 + 48) + head + 2 * 4 * (4 * 32 + 48)


@pytest.mark.parametrize("change", ["merged", "scaled", "rounded to bf16"])
def test_another_base_is_refused_unless_the_directions_were_stored(change):
    def changed():
        backbone = tiny_backbone("bert")
        if change == "merged":
            other = attach(backbone, method_from("lora(rank=2)"))
            Bench().train(other, 3, learning_rate=1e-3)
            other.merge()
        with torch.no_grad():
            for site in backbone.sites(["value"]) if change == "scaled" else ():
                backbone.module(site).weight *= 1.01
            if change == "rounded to bf16":
                backbone.model.bfloat16().float()
        return backbone

    with pytest.raises(ConfigError, match=r"principal directions at bert\.\S+ must come out .*save_projection=True"):
        attach(changed(), method_from(PICA)).load_state(trained().state())
    stored = "pica(rank=4, save_projection=True)"
    ours, theirs = trained(text=stored), attach(changed(), method_from(stored))
    theirs.load_state(ours.state())
    assert all(torch.equal(a.delta(None), b.delta(None)) for a, b in zip(ours.edits, theirs.edits, strict=True))


@pytest.mark.parametrize("wrong", ["sign", "order", "rotation"])
def test_directions_that_come_out_otherwise_are_refused_and_nothing_is_loaded(monkeypatch, wrong):
    state = trained().state()

    def otherwise(weight, rank):
        p, values = principal_directions(weight, rank)
        if wrong == "sign":
            p[2] = -p[2]
        elif wrong == "order":
            p = p[[0, 2, 1, 3]]
        else:  # by a hundredth of a degree
            turn = torch.tensor(1.7e-4)
            p[1:3] = torch.stack([turn.cos() * p[1] - turn.sin() * p[2], turn.sin() * p[1] + turn.cos() * p[2]])
        return p, values

    monkeypatch.setattr("deltaproof.methods.pica.principal_directions", otherwise)
    fresh = attach(tiny_backbone("bert"), method_from(PICA))
    with pytest.raises(ConfigError, match="in the same precision, or train with save_projection=True"):
        fresh.load_state(state)
    assert all(not edit.m.any() for edit in fresh.edits)
    with pytest.raises(ConfigError, match="must come out as in the training"):  # nor does a training go on with them
        fresh.edits[0].resume({"fingerprint": state[f"{fresh.places()[0]}.fingerprint"]})


def test_a_folder_whose_fingerprint_is_of_another_decomposition_is_refused(tmp_path):
    base = save_tiny("bert", tmp_path / "base")
    tuned = _tuned_on(base, PICA)
    save_tuned(tuned, TASK, _spec(base, tuned), tmp_path / "tuned")
    file = tmp_path / "tuned" / "deltaproof.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("fingerprint"))
    tensors[name][0, 1] *= -1
    save_file(tensors, file)
    with pytest.raises(ConfigError, match="must come out as in the training"):
        load_tuned(tmp_path / "tuned")


def test_a_weight_whose_directions_rounding_may_turn_is_warned_about():
    backbone = tiny_backbone("bert")
    with torch.no_grad():
        backbone.module(backbone.sites(["value"])[1]).weight.copy_(torch.eye(32))
    with pytest.warns(UserWarning, match=r"singular values at bert\.encoder\.layer\.1\.attention\.self\.value .*apart"):
        attach(backbone, method_from(PICA))


def test_on_one_base_each_takes_its_directions_from_the_weights_without_the_other():
    backbone = tiny_backbone("bert")
    before = answers(backbone.model, backbone.tokenizer)
    first = attach(backbone, method_from(PICA))
    Bench().train(first, 5, learning_rate=1e-2)
    head = {key: value.clone() for key, value in backbone.model.classifier.state_dict().items()}
    state, own = {name: value.clone() for name, value in first.state().items()}, answers(first, backbone.tokenizer)
    directions = [edit.p.clone() for edit in first.edits]
    first.detach()
    second = attach(backbone, method_from("pica(rank=8)"), seed=1)
    assert all(torch.equal(edit.p[:4], p) for edit, p in zip(second.edits, directions, strict=True))
    Bench().train(second, 5, learning_rate=1e-2)
    second.detach()
    again = attach(backbone, method_from(PICA))
    again.load_state(state)
    assert torch.equal(answers(again, backbone.tokenizer), own)
    again.detach()
    backbone.model.classifier.load_state_dict(tiny_backbone("bert").model.classifier.state_dict())
    assert torch.equal(answers(backbone.model, backbone.tokenizer), before)
    assert not torch.equal(head["weight"], backbone.model.classifier.weight)


def test_two_at_once_add_up_from_the_same_weights():
    tuned = attach(tiny_backbone("bert"), method_from("together(pica(rank=4), pica(rank=2))"))
    for (site, one), (_, two) in zip(list(tuned.placed())[:10], list(tuned.placed())[10:], strict=True):
        assert torch.equal(one.p[:2], two.p), site.name
        assert one.m is not two.m


def test_a_rank_above_the_smaller_side_is_refused():
    with pytest.raises(ConfigError, match=r"must hold at model\.layers\.0\.self_attn\.k_proj, got 32 > 16; lower"):
        attach(tiny_backbone("llama"), method_from("pica"))


def test_directions_that_were_kept_on_disk_are_those_that_are_made_anew_to_the_bit(tmp_path, monkeypatch):
    plain = attach(tiny_backbone("llama"), "pica(rank=4)")
    made = []
    monkeypatch.setattr(decompositions, "_decomposed", lambda *given: made.append(1) or decomposed(*given))
    for n_made in (10, 10):  # five roles in two layers
        with decompositions.decompositions_in(tmp_path):
            again = attach(tiny_backbone("llama"), "pica(rank=4)")
        assert len(made) == n_made
        for (site, one), (_, two) in zip(plain.placed(), again.placed(), strict=True):
            assert torch.equal(one.p, two.p), site.name
            assert torch.equal(one.fingerprint, two.fingerprint), site.name
    attach(tiny_backbone("llama"), "pica(rank=4)")
    assert len(made) == 20, "outside of the block nothing is looked up"


def test_what_was_kept_serves_the_same_weight_and_rank_only(tmp_path):
    w = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    with decompositions.decompositions_in(tmp_path):
        for weight, rank in [(w, 2), (w, 3), (2 * w, 2), (w.T, 2), (w.bfloat16(), 2)]:
            wanted = decomposed(weight, rank)
            for _ in range(2):
                assert all(map(torch.equal, principal_directions(weight, rank), wanted))
    assert len(list(tmp_path.iterdir())) == 5


def test_a_file_that_was_torn_is_made_anew(tmp_path):
    w = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    with decompositions.decompositions_in(tmp_path):
        wanted = principal_directions(w, 2)
        (path,) = tmp_path.iterdir()
        whole = path.read_bytes()
        path.write_bytes(whole[:-9])
        assert all(map(torch.equal, principal_directions(w, 2), wanted))
    assert path.read_bytes() == whole


def test_layers_of_different_widths_cannot_share_and_both_are_named():
    tokenizer = tiny_backbone("bert").tokenizer
    config = BertConfig(
        vocab_size=400, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
    )
    model = BertForSequenceClassification(config)
    model.bert.encoder.layer[1].intermediate.dense = torch.nn.Linear(32, 64)
    model.bert.encoder.layer[1].output.dense = torch.nn.Linear(64, 32)
    backbone = backbone_of(model, tokenizer)
    with pytest.raises(
        ConfigError,
        match=r"got 48 at bert\.encoder\.layer\.0\.intermediate\.dense and 64 at bert\.encoder\.layer\.1\.intermediate",
    ):
        attach(backbone, method_from(PICA))
    apart = attach(backbone, method_from("pica(rank=4, share=False)"))
    assert torch.isfinite(answers(apart, tokenizer)).all()


def test_layers_computed_again_in_the_backward_pass_give_the_same_gradients():
    def gradients(recompute):
        tuned = trained(n_steps=3)
        if recompute:
            tuned.model.gradient_checkpointing_enable({"use_reentrant": False})
        Bench().loss(tuned.train()).backward()
        return [parameter.grad for parameter in tuned.trained().values()]

    for plain, again in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(plain, again, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_compiled_it_answers_the_same(family):
    tuned = trained(family)
    wanted = answers(tuned, tuned.backbone.tokenizer)
    torch.testing.assert_close(
        answers(torch.compile(tuned, backend="eager"), tuned.backbone.tokenizer), wanted, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_on_a_base_in_bf16_its_matrix_is_trained_in_fp32(family):
    backbone = tiny_backbone(family)
    backbone.model.bfloat16()
    tuned = attach(backbone, method_from(PICA))
    matrices = [parameter for name, parameter in tuned.trained().items() if name.endswith(".m")]
    assert matrices
    assert {parameter.dtype for parameter in matrices} == {torch.float32}
    Bench(family).train(tuned, 2, learning_rate=1e-3)
    for matrix in matrices:
        assert bool(matrix.any())
        assert not torch.equal(matrix, matrix.bfloat16().float()), "values finer than bf16 has"


def test_a_training_is_that_of_a_lora_with_a_frozen_a():
    """peft's LoRA with A = P frozen and B = M, one pair per layer, is PiCa without sharing: equal losses by hand."""
    ours = attach(tiny_backbone("bert"), method_from("pica(rank=4, share=False)"))
    targets = r".*\.(query|key|value|intermediate\.dense)|.*\d\.output\.dense"
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=4, target_modules=targets)
    theirs = peft.get_peft_model(tiny_backbone("bert").model, config)
    for site, edit in ours.placed():
        layer = theirs.base_model.model.get_submodule(site.path)
        layer.lora_A["default"].weight.data = edit.p.clone()
        layer.lora_A["default"].weight.requires_grad_(False)
    rows, pad = encoded(ours.backbone.tokenizer, 40), ours.backbone.tokenizer.pad_token_id
    losses = [train_by_hand(model, rows, pad, learning_rate=3e-3, batch_size=8, n_epochs=4, seed=3)
              for model in (ours, theirs)]  # fmt: skip
    np.testing.assert_allclose(*losses, rtol=1e-5, atol=1e-5)
