"""LoReFT and DiReFT are their equations, at the tokens that the paper names, however the model is called.

The reference is written here from the formulas, with a plain forward hook and loops over rows; R comes from A by
Cholesky's route, which is not the one that ours takes. The fixtures are values of the authors' code.
"""

import copy
import math

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from deltaproof.backbones import TINY_FAMILIES, Site, tiny_backbone, tiny_language_model
from deltaproof.errors import ConfigError
from deltaproof.methods import method_from
from deltaproof.methods.context import Context
from deltaproof.methods.hooks import hook_up
from deltaproof.methods.orthonormal import orthonormal
from deltaproof.methods.positions import Positions
from deltaproof.methods.reft import FORMS, Reft
from deltaproof.methods.tuned import attach
from deltaproof.testing import CHECKS, Bench
from deltaproof.training.optimizer import adamw
from deltaproof.training.recomputing import recompute_activations

ALL_FORMS = {
    "direft": "direft", **{form: f"loreft(form='{form}')" for form in FORMS if form != "direft"}
}  # fmt: skip


def edit_of(text: str, width: int, dtype=torch.float32) -> Reft:
    """One edit of this method, alone."""
    method = method_from(text)
    edit = Reft(width, method.shape, Positions.parse(method.positions), slice(None), method).to(dtype)
    edit.start(None, torch.Generator().manual_seed(0))
    return edit


# The equations


R = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, -1.0, 1.0, -1.0]]) / 2
FIXTURES = {
    "loreft": [1.5, -2.0, 3.5, 0.0],
    "loreft(form='unconstrained')": [1.5, -2.0, 3.5, 0.0],
    "loreft(form='direct')": [3.5, 1.0, 5.5, 3.0],
    "direft": [3.5, 1.0, 5.5, 3.0],
}


@pytest.mark.parametrize("text", FIXTURES)
def test_the_edit_gives_what_the_authors_code_gives(text):
    method = method_from(text).replace(rank=2)
    edit = Reft(4, method.shape, Positions.parse("l1"), slice(None), method)
    h = torch.tensor([1.0, 2.0, 3.0, 4.0])
    with torch.no_grad():
        edit.basis.copy_(R.T)
        edit.w.copy_(torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]]))
        edit.bias.copy_(torch.tensor([0.5, -0.5]))
        after = h + edit.change(h)
    torch.testing.assert_close(after, torch.tensor(FIXTURES[text]))
    if text == "loreft":
        torch.testing.assert_close(R @ after, torch.tensor([1.5, 3.5]))


def test_inside_the_subspace_h_becomes_the_aim_and_outside_it_stays():
    """R Phi(h) = W h + b and (I - R^T R) Phi(h) = (I - R^T R) h."""
    edit = edit_of("loreft(rank=3)", 16, torch.double)
    h, p = torch.randn(7, 16, dtype=torch.double), edit.p()
    after = h + edit.change(h)
    torch.testing.assert_close(after @ p, F.linear(h, edit.w, edit.bias))
    torch.testing.assert_close(after - after @ p @ p.T, h - h @ p @ p.T)


def test_the_ablations_without_w_are_their_equations():
    h = torch.randn(5, 8, dtype=torch.double)
    bias, constant = (edit_of(f"loreft(rank=2, form='{form}')", 8, torch.double) for form in ("bias", "constant"))
    torch.testing.assert_close(bias.change(h), (bias.bias @ bias.p().T).expand(5, 8))
    torch.testing.assert_close(constant.change(h), (constant.bias - h @ constant.p()) @ constant.p().T)
    assert bias.w is None


@pytest.mark.parametrize("act", ["relu", "gelu", "silu", "tanh"])
def test_the_non_linearity_stands_on_the_aim(act):
    edit = edit_of(f"loreft(rank=2, act='{act}')", 8, torch.double)
    h = torch.randn(5, 8, dtype=torch.double)
    aim = transformers.activations.ACT2FN[act](F.linear(h, edit.w, edit.bias))
    torch.testing.assert_close(edit.change(h), (aim - h @ edit.p()) @ edit.p().T)


@pytest.mark.parametrize("text", ALL_FORMS.values())
def test_gradients_are_those_of_finite_differences(text):
    edit = edit_of(text[:-1] + ", rank=2)" if text.endswith(")") else f"{text}(rank=2)", 6, torch.double)
    names = [name for name, _ in edit.named_parameters()]
    h = torch.randn(3, 6, dtype=torch.double)

    def change(h, *values):
        return torch.func.functional_call(
            _Change(edit), {f"edit.{n}": v for n, v in zip(names, values, strict=True)}, h
        )

    values = [parameter.detach().clone().requires_grad_() for _, parameter in edit.named_parameters()]
    values[0] = (values[0] + 0.3 * torch.randn_like(values[0])).detach().requires_grad_()  # no longer orthonormal
    assert torch.autograd.gradcheck(change, (h.requires_grad_(), *values))


class _Change(nn.Module):
    def __init__(self, edit):
        super().__init__()
        self.edit = edit

    def forward(self, h):
        return self.edit.change(h)


@pytest.mark.parametrize("text", ALL_FORMS.values())
def test_the_reachable_set_has_the_dimension_that_a_jacobian_measures(text):
    edit = edit_of(text[:-1] + ", rank=2)" if text.endswith(")") else f"{text}(rank=2)", 7, torch.double)
    names, values = zip(*[(n, p.detach() + torch.randn_like(p)) for n, p in edit.named_parameters()], strict=True)
    points = torch.cat([torch.zeros(1, 7), torch.eye(7)]).double()  # an affine map is told by its values here

    def change(*values):
        found = {f"edit.{name}": value for name, value in zip(names, values, strict=True)}
        return torch.func.functional_call(_Change(edit), found, points)

    jacobian = torch.autograd.functional.jacobian(change, values)
    measured = torch.linalg.matrix_rank(torch.cat([part.reshape(points.numel(), -1) for part in jacobian], dim=1))
    assert edit.reachable_dimension() == int(measured) <= sum(value.numel() for value in values)


# R


@pytest.mark.parametrize(("width", "rank"), [(4096, 8), (768, 1), (32, 32), (64, 63)])
def test_r_starts_as_the_matrix_it_is_made_of(width, rank):
    basis = edit_of(f"loreft(rank={rank})", width).basis.detach()
    q = orthonormal(basis)
    torch.testing.assert_close(q, basis, atol=1e-5, rtol=0)
    torch.testing.assert_close(q.T @ q, torch.eye(rank), atol=1e-5, rtol=0)


@pytest.mark.parametrize("condition", [1.0, 1e3, 1e6])
def test_r_is_orthonormal_whatever_the_condition_of_what_it_is_made_of(condition):
    u, v = torch.linalg.qr(torch.randn(256, 8)).Q, torch.linalg.qr(torch.randn(8, 8)).Q
    q = orthonormal(u @ torch.diag(torch.logspace(0, -math.log10(condition), 8)) @ v)
    torch.testing.assert_close(q.T @ q, torch.eye(8), atol=1e-5, rtol=0)


def test_r_is_the_factor_with_a_positive_diagonal_so_that_scaling_changes_nothing():
    a = torch.randn(20, 3, dtype=torch.double)
    q = orthonormal(a)
    assert torch.equal(torch.tril(q.T @ a, -1).abs() < 1e-12, torch.ones(3, 3, dtype=torch.bool))
    assert (q.T @ a).diagonal().gt(0).all()
    torch.testing.assert_close(orthonormal(1e-4 * a), q)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("autocast", [False, True])
def test_r_stays_orthonormal_over_training_saving_and_loading(weight_decay, autocast, tmp_path):
    """Where the parametrisation of the authors' code loses R to the first step of weight decay."""

    def train(tuned, n_steps):
        optimizer = adamw(tuned.trained().values(), 1e-2, weight_decay, torch.device("cpu"))
        for _ in range(n_steps):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = Bench("bert").loss(tuned.train())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    def check(tuned):
        for _, edit in tuned.placed():
            rows = edit.p().detach().T
            assert rows.dtype == torch.float32
            torch.testing.assert_close(rows @ rows.T, torch.eye(4), atol=1e-5, rtol=0)

    method = method_from("loreft(layers=[1])")
    tuned = attach(tiny_backbone("bert"), method)
    start = next(tuned.placed())[1].p().detach().clone()
    train(tuned, 100)
    check(tuned)
    assert not torch.allclose(next(tuned.placed())[1].p(), start, atol=1e-3), "R learns"
    safetensors.torch.save_file({k: v.clone() for k, v in tuned.state().items()}, tmp_path / "state.safetensors")
    again = attach(tiny_backbone("bert"), method)
    again.load_state(safetensors.torch.load_file(tmp_path / "state.safetensors"))
    assert torch.equal(next(again.placed())[1].p(), next(tuned.placed())[1].p())
    train(again, 5)
    check(again)


def test_a_training_that_resumes_ends_with_the_same_bits(tmp_path):
    def steps(tuned, optimizer, n_steps):
        for _ in range(n_steps):
            Bench("bert").loss(tuned.train()).backward()
            optimizer.step()
            optimizer.zero_grad()

    def fresh():
        tuned = attach(tiny_backbone("bert"), method_from("loreft(tied=False)"))
        return tuned, adamw(tuned.trained().values(), 1e-2, 0.1, torch.device("cpu"))

    whole, optimizer = fresh()
    steps(whole, optimizer, 6)
    first, optimizer = fresh()
    steps(first, optimizer, 3)
    safetensors.torch.save_file({k: v.clone() for k, v in first.state().items()}, tmp_path / "state.safetensors")
    second, after = fresh()
    second.load_state(safetensors.torch.load_file(tmp_path / "state.safetensors"))
    after.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(second, after, 3)
    assert all(torch.equal(value, second.state()[name]) for name, value in whole.state().items())


def test_at_the_start_the_edit_is_as_large_as_theory_says():
    """E ||Phi(h) - h||^2 / ||h||^2 = (4/3) r / d for W as `nn.Linear` starts and R orthonormal, b left out."""
    ratios = []
    for seed in range(200):
        edit = edit_of("loreft", 64)
        edit.start(None, torch.Generator().manual_seed(seed))
        nn.init.zeros_(edit.bias)
        h = torch.randn(20, 64, generator=torch.Generator().manual_seed(1000 + seed))
        ratios.append((edit.change(h).square().sum(-1) / h.square().sum(-1)).mean().detach())
    assert torch.stack(ratios).mean().item() == pytest.approx(4 / 3 * 4 / 64, rel=0.05)


@pytest.mark.parametrize(
    "text", ["loreft(identity_start=True)", "direft(identity_start=True, act='relu')"]
    + [f"loreft(form='{form}', identity_start=True)" for form in ("bias", "direct", "unconstrained")],
)  # fmt: skip
def test_on_request_it_starts_as_the_base_and_learns(text):
    method = method_from(text)
    assert method.is_base_at_start
    CHECKS["a_fresh_method_leaves_the_model_as_it_was"](method, Bench("llama"))
    CHECKS["a_step_lowers_the_loss"](method, Bench("llama"))


@pytest.mark.parametrize(("text", "message"), [
    ("loreft(form='constant', identity_start=True)", r"can leave h as it is, .* cannot; choose `identity_start=False`"),
    ("loreft(act='relu', identity_start=True)", r"can leave h as it is, .* cannot; choose `act='linear'`"),
    ("loreft(form='bias', act='relu')", r"`act` stands on W h \+ b, which .* lacks; leave `act` at `linear`"),
])  # fmt: skip
def test_settings_that_contradict_each_other_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        method_from(text)


def test_a_rank_above_the_width_is_refused():
    with pytest.raises(ConfigError, match=r"`rank <= min\(d_in, d_out\)` must hold at .*, got 33 > 32"):
        attach(tiny_backbone("bert"), method_from("loreft(rank=33)"))


def test_dropout_falls_on_the_edit_or_on_the_whole_state():
    """The authors' code drops the state itself: half of it is 0 with a share of one half."""
    h = torch.randn(50, 64)
    for where in ("edit", "state"):
        edit = edit_of(f"loreft(dropout=0.5, dropout_on='{where}')", 64).train()
        after = h + edit.change(h)
        full = h + edit.eval().change(h)
        zeroed, kept = (after.abs() < 1e-5).float().mean().item(), (after - h).abs() < 1e-7
        if where == "edit":
            assert kept.float().mean().item() == pytest.approx(0.5, abs=0.03)
            torch.testing.assert_close((after - h)[~kept], 2 * (full - h)[~kept], atol=1e-5, rtol=1e-4)
        else:
            assert zeroed == pytest.approx(0.5, abs=0.03)
            rest = after.abs() >= 1e-5
            torch.testing.assert_close(after[rest], 2 * full[rest], atol=1e-5, rtol=1e-4)


# Positions


def positions_by_hand(first: int, n: int, p: int, s: int) -> tuple[list[int], list[int]]:
    """Columns of the first and last tokens of a prompt of n tokens that begins at `first`, as the paper says."""
    if n < p + s:
        p, s = min(p, n // 2), min(s, -(-n // 2))
    return list(range(first, first + p)), list(range(first + n - s, first + n))


@pytest.mark.parametrize(("text", "p", "s"), [("f7+l7", 7, 7), ("f3", 3, 0), ("l1", 0, 1), ("f2+l2", 2, 2)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_positions_are_those_of_the_paper_for_every_length_and_side(text, p, s, side):
    lengths = list(range(1, 18))
    mask = torch.zeros(len(lengths), 18, dtype=torch.long)
    for row, n in enumerate(lengths):
        mask[row, 18 - n :] = 1 if side == "left" else 0
        mask[row, :n] = 1 if side == "right" else mask[row, :n]
    context = Context()
    context.read({"attention_mask": mask})
    columns, counts = Positions.parse(text).columns(context, torch.zeros(len(lengths), 18, 4))
    for row, n in enumerate(lengths):
        before, after = positions_by_hand(18 - n if side == "left" else 0, n, p, s)
        found = columns[row][counts[row]].tolist()
        assert sorted(found) == before + after, (n, found)
        assert len(set(found)) == len(found)
    assert positions_by_hand(0, 8, 2, 2)[1] == [6, 7]  # the library's own data sets would stop at 6
    assert positions_by_hand(0, 3, 2, 2) == ([0], [1, 2])  # the code would leave out 1


@pytest.mark.parametrize("text", ["", "f", "f0", "l0+f1", "f3l3", "f3+", "+l3", "f3+l3+f1", "first", "f٣"])
def test_positions_that_cannot_be_read_are_refused(text):
    with pytest.raises(
        ConfigError, match=r"`positions` must read `fN\+lM`, `fN`, `lM` or `all` .* for example `f7\+l7`"
    ):
        method_from({"name": "loreft", "positions": text})


def test_tied_is_one_edit_per_layer_and_untied_one_for_each_end():
    def n_edits(text):
        return len(list(method_from(text).edits(tiny_backbone("bert"))))

    assert n_edits("loreft") == 2
    assert n_edits("loreft(tied=False)") == 4
    assert n_edits("loreft(tied=False, positions='l3')") == 2
    assert n_edits("loreft(tied=False, positions='all', layers=[1])") == 1


# The model: the reference is a forward hook with loops


def by_hand(edit: Reft, h: Tensor) -> Tensor:
    """Phi(h) as the paper writes it, R by Cholesky: A^T A = L L^T, R^T = A L^-T."""
    gram = torch.linalg.cholesky(edit.basis.T @ edit.basis)
    r = torch.linalg.inv(gram) @ edit.basis.T if edit.form.orthonormal else edit.basis.T
    if edit.form.subtracts:
        return h + (h @ edit.w.T + edit.bias - h @ r.T) @ r
    return h + (h @ edit.w.T + edit.bias) @ r


class Reference:
    """A plain model with a hook on each layer that edits single positions, one after the other."""

    def __init__(self, backbone, tuned, rows: list[tuple[int, int]]):
        """`rows`: first column and length of each prompt, in every forward pass."""
        self.model = backbone.model
        positions = Positions.parse(tuned.method.positions)
        p, s = positions.prefix, positions.suffix
        edits: dict[str, list[Reft]] = {}
        for site, edit in tuned.placed():
            edits.setdefault(site.path, []).append(edit)
        for path, here in edits.items():
            hook = self.hook(here[0], here[-1], rows, p, s, positions.everywhere)
            self.model.get_submodule(path).register_forward_hook(hook)

    def hook(self, front: Reft, back: Reft, rows, p, s, everywhere):
        def edit(module, inputs, output):
            h = output[0] if isinstance(output, tuple) else output
            parts = []
            for row, (first, n) in enumerate(rows):
                before, after = positions_by_hand(first, n, p, s)
                before = list(range(first, first + n)) if everywhere else before
                tokens = list(h[row])
                for column in before:
                    tokens[column] = by_hand(front, tokens[column])
                for column in after:
                    tokens[column] = by_hand(back, tokens[column])
                parts.append(torch.stack(tokens))
            h = torch.stack(parts)
            return (h, *output[1:]) if isinstance(output, tuple) else h

        return edit


def strong(text: str, family: str = "llama", make=tiny_language_model):
    """The method with values that move the logits, in evaluation."""
    tuned = attach(make(family), method_from(text))
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, edit in tuned.placed():
            edit.basis.add_(0.1 * torch.randn(edit.basis.shape, generator=draw))
            edit.w.add_(0.5 * torch.randn(edit.w.shape, generator=draw))
            edit.bias.add_(2 * torch.randn(edit.bias.shape, generator=draw))
    return tuned.eval()


def padded(lengths: list[int], side: str, width: int = 14) -> tuple[dict[str, Tensor], list[tuple[int, int]]]:
    """A batch of rows of these lengths with padding on one side, and where each row begins, and how long it is."""
    draw = torch.Generator().manual_seed(2)
    ids = torch.full((len(lengths), width), 3)
    mask = torch.zeros_like(ids)
    rows = []
    for row, n in enumerate(lengths):
        first = width - n if side == "left" else 0
        ids[row, first : first + n] = torch.randint(4, 250, (n,), generator=draw)
        mask[row, first : first + n] = 1
        rows.append((first, n))
    return {"input_ids": ids, "attention_mask": mask}, rows


TEXTS = [
    "loreft(positions='f2+l2')", "loreft(positions='f7+l7', tied=False)", "loreft(positions='f3', rank=2)",
    "direft(positions='l1')", "direft(positions='f5+l5', tied=False)", "loreft(positions='all')",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("family", "make"), [("llama", tiny_language_model), ("gpt2", tiny_language_model),
                                              ("bert", tiny_backbone)])  # fmt: skip
def test_answers_and_gradients_are_those_of_a_plain_hook(text, side, family, make):
    tuned = strong(text, family, make)
    batch, rows = padded([14, 1, 2, 3, 4, 9, 10], side)
    reference = Reference(make(family), tuned, rows)
    real = batch["attention_mask"].bool() if make is tiny_language_model else ...
    got, wanted = tuned(**batch).logits[real], reference.model(**batch).logits[real]
    torch.testing.assert_close(got, wanted, atol=2e-5, rtol=1e-5)
    for name, parameter in tuned.edits.named_parameters():
        ours, theirs = (torch.autograd.grad(out.square().mean(), parameter, retain_graph=True)[0]
                        for out in (got, wanted))  # fmt: skip
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2", "modernbert", "gpt2"])
@pytest.mark.parametrize("text", ["loreft(positions='f2+l3', tied=False)", "direft(positions='l1')"])
def test_a_pair_of_texts_is_one_prompt_from_its_first_token_to_its_last(text, family):
    tuned = strong(text, family, tiny_backbone)
    tokenizer = tuned.backbone.tokenizer
    batch = tokenizer(["a good film", "bad"], ["the story of the fox is short", "a dog"], padding=True,
                      return_tensors="pt")  # fmt: skip
    rows = [(0, int(n)) for n in batch["attention_mask"].sum(1)]
    reference = Reference(tiny_backbone(family), tuned, rows)
    torch.testing.assert_close(tuned(**batch).logits, reference.model.eval()(**batch).logits, atol=2e-5, rtol=1e-5)


def test_a_layer_may_put_out_its_state_among_other_things():
    """As the layers of earlier releases of transformers do: what comes behind the state passes as it is."""

    class Layer(nn.Module):
        def forward(self, h):
            return 2 * h, "its attention"

    edit, layer, context = edit_of("loreft(positions='all')", 8), Layer(), Context()
    site = Site("layer", "layer", 0, 8, 8)
    hook_up(layer, [(site, edit)], context, lambda site: layer)
    h = torch.randn(2, 3, 8)
    state, rest = layer(h)
    torch.testing.assert_close(state, 2 * h + edit.change(2 * h))
    assert rest == "its attention"


@pytest.mark.parametrize("side", ["left", "right"])
def test_trained_on_prompt_and_answer_only_the_prompt_is_edited(side):
    """By lengths that are given, or by labels, whose prompt is -100."""
    tuned = strong("loreft(positions='f2+l2', tied=False)")
    batch, rows = padded([14, 8, 5, 4], side)
    prompts = [6, 3, 1, 4]
    reference = Reference(
        tiny_language_model("llama"), tuned, [(first, n) for (first, _), n in zip(rows, prompts, strict=True)]
    )
    real = batch["attention_mask"].bool()
    wanted = reference.model(**batch).logits[real]
    torch.testing.assert_close(tuned(**batch, prompt_lengths=torch.tensor(prompts)).logits[real], wanted)
    labels = batch["input_ids"].masked_fill(~real, -100)
    for row, ((first, _), n) in enumerate(zip(rows, prompts, strict=True)):
        labels[row, first : first + n] = -100
    torch.testing.assert_close(tuned(**batch, labels=labels).logits[real], wanted)
    whole = tuned(**batch).logits[real]
    assert not torch.allclose(whole, wanted, atol=1e-3)
    tuned(**batch, prompt_lengths=torch.tensor(prompts))
    assert torch.equal(tuned.model(**batch).logits[real], whole), "lengths of one call are not those of the next"
    assert torch.equal(tuned.model(batch["input_ids"], batch["attention_mask"]).logits[real], whole)


def test_labels_that_ask_for_everything_are_refused():
    tuned, (batch, _) = strong("loreft"), padded([5, 6], "right")
    with pytest.raises(ConfigError, match="labels ask for every token of a row; set the prompt's labels to -100"):
        tuned(**batch, labels=batch["input_ids"])
    tuned(**batch, labels=batch["input_ids"], prompt_lengths=torch.tensor([2, 3]))


def test_prompt_lengths_of_another_number_of_rows_are_refused():
    tuned, (batch, _) = strong("loreft"), padded([5, 6], "right")
    with pytest.raises(ConfigError, match=r"one number per row, the shape \(2,\), got \(1,\)"):
        tuned(**batch, prompt_lengths=torch.tensor([2]))


def test_a_mask_that_does_not_tell_tokens_is_refused():
    tuned, (batch, _) = strong("loreft"), padded([5, 5], "right", 5)
    sees = torch.ones(5, 5, dtype=torch.bool).tril().expand(2, 1, 5, 5)
    with pytest.raises(ConfigError, match=r"needs an attention mask of the shape \(batch, tokens\)"):
        tuned(input_ids=batch["input_ids"], attention_mask=sees)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_that_are_not_edited_keep_their_bits(dtype):
    edit = edit_of("loreft(positions='f2+l1')", 16)
    h = torch.randn(3, 9, 16).to(dtype)
    h[2, 4:] = torch.nan  # what padding holds does not matter
    context = Context()
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[2, 4:] = 0
    context.read({"attention_mask": mask})
    after = edit(h, context)
    edited = [{0, 1, 8}, {0, 1, 8}, {0, 1, 3}]
    for row in range(3):
        for column in range(9):
            same = torch.equal(after[row, column].nan_to_num(7), h[row, column].nan_to_num(7))
            assert same == (column not in edited[row]), (row, column)
    after[:, :4].float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in edit.parameters())


def test_logits_before_the_first_edited_token_are_the_bases():
    tuned, (batch, _) = strong("loreft(positions='l3')"), padded([14, 14], "right")
    got = tuned(**batch).logits
    tuned.detach()
    base = tuned.model(**batch).logits
    assert torch.equal(got[:, :11], base[:, :11])
    assert not torch.allclose(got[:, 11:], base[:, 11:], atol=1e-2)


def test_gradients_reach_what_is_trained_and_nothing_else():
    tuned, (batch, _) = strong("loreft(tied=False)"), padded([14, 9], "left")
    tuned(**batch).logits.square().mean().backward()
    for name, parameter in tuned.trained().items():
        assert parameter.grad.abs().max() > 0, name
    assert all(p.grad is None and not p.requires_grad for p in tuned.model.parameters())


# Generation

GREEDY = {"max_new_tokens": 10, "do_sample": False, "pad_token_id": 3, "eos_token_id": None}
GENERATING = ["loreft(positions='f2+l2')", "loreft(positions='f7+l7', tied=False)", "direft(positions='l1')"]


def generated(tuned, batch, **options) -> Tensor:
    found: Tensor = tuned.generate(**batch, **{**GREEDY, **options})
    return found[:, batch["input_ids"].shape[1] :]


@pytest.mark.parametrize("text", GENERATING)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_what_is_generated_is_what_a_plain_hook_generates(text, family):
    """Step by step without a cache, with the prompt's tokens edited in every pass."""
    tuned = strong(text, family)
    batch, rows = padded([6, 1, 3, 4], "left", 6)
    reference = Reference(tiny_language_model(family), tuned, rows).model
    wanted = reference.generate(**batch, **GREEDY, use_cache=False)[:, 6:]
    got = generated(tuned, batch)
    assert torch.equal(got, wanted)
    assert torch.equal(generated(tuned, batch, use_cache=False), wanted)
    assert torch.equal(generated(tuned, batch), wanted), "generation after generation"
    tuned.detach()
    assert not torch.equal(tuned.model.generate(**batch, **GREEDY)[:, 6:], wanted)


def test_a_batch_padded_on_the_left_generates_what_each_row_does_alone():
    tuned = strong("loreft(positions='f2+l2')")
    batch, rows = padded([6, 1, 3, 4], "left", 6)
    together = generated(tuned, batch)
    for row, (first, _) in enumerate(rows):
        ids = batch["input_ids"][row : row + 1, first:]
        alone = generated(tuned, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        assert torch.equal(alone[0], together[row])


def test_beams_and_several_answers_per_prompt_are_edited_like_their_prompt():
    tuned = strong("loreft(positions='f2+l2')")
    batch, rows = padded([6, 2, 4], "left", 6)
    expanded = [row for row in rows for _ in range(3)]
    reference = Reference(tiny_language_model("llama"), tuned, expanded).model
    options = {"num_beams": 3, "num_return_sequences": 2}
    wanted = reference.generate(**batch, **GREEDY, **options, use_cache=False)[:, 6:]
    assert torch.equal(generated(tuned, batch, **options), wanted)
    assert torch.equal(generated(tuned, batch, **options, use_cache=False), wanted)


def test_sampling_with_the_same_seed_gives_the_same_text():
    tuned, (batch, _) = strong("loreft(positions='f2+l2')"), padded([6, 2, 4], "left", 6)
    found = []
    for use_cache in (True, True, False):
        torch.manual_seed(5)
        found.append(generated(tuned, batch, do_sample=True, num_return_sequences=2, use_cache=use_cache))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("options", [
    {"cache_implementation": "static"}, {"prefill_chunk_size": 4}, {"prompt_lookup_num_tokens": 3},
], ids=str)  # fmt: skip
def test_other_ways_to_fill_the_cache_give_the_same_text(options):
    """A cache of fixed size comes with a mask of another shape; a prompt may come in pieces, and guesses beside it."""
    tuned = strong("loreft(positions='f2+l3')")
    lengths = [6] if "prompt_lookup_num_tokens" in options else [6, 5, 2]
    batch, _ = padded(lengths, "left", 6)
    assert torch.equal(generated(tuned, batch, **options), generated(tuned, batch))


def test_embeddings_may_be_the_prompt():
    tuned, (batch, _) = strong("loreft(positions='f2+l2')"), padded([6, 4], "left", 6)
    embeds = tuned.model.get_input_embeddings()(batch["input_ids"])
    got = tuned.generate(inputs_embeds=embeds, attention_mask=batch["attention_mask"], **GREEDY)
    assert torch.equal(got, generated(tuned, batch))
    with pytest.raises(ConfigError, match="`generate` needs a prompt, got none; give `input_ids`"):
        tuned.generate(**GREEDY)


def test_an_error_while_generating_leaves_nothing_behind():
    class Fails(transformers.StoppingCriteria):
        def __call__(self, input_ids, scores, **options):
            raise KeyboardInterrupt

    tuned, (batch, _) = strong("loreft(positions='f2+l2')"), padded([6, 2], "left", 6)
    logits, text = tuned(**batch).logits, generated(tuned, batch)
    with pytest.raises(KeyboardInterrupt):
        generated(tuned, batch, stopping_criteria=transformers.StoppingCriteriaList([Fails()]))
    assert tuned.context.n_prompt_columns is None
    assert tuned.context.prompt_mask is None
    assert torch.equal(tuned(**batch).logits, logits)
    assert torch.equal(generated(tuned, batch), text)
    with pytest.raises(ValueError, match="must specify exactly one of input_ids or inputs_embeds"):
        tuned(prompt_lengths=torch.tensor([1, 1]))
    assert torch.equal(tuned.model(**batch).logits, logits)


def test_teacher_forced_the_model_says_what_it_generates():
    tuned, (batch, _) = strong("loreft(positions='f2+l2')"), padded([6, 2, 4], "left", 6)
    answer = generated(tuned, batch)
    whole = {
        "input_ids": torch.cat([batch["input_ids"], answer], dim=1),
        "attention_mask": F.pad(batch["attention_mask"], (0, answer.shape[1]), value=1),
    }
    places = whole["attention_mask"].cumsum(1) - 1
    logits = tuned(**whole, position_ids=places.clamp(min=0), prompt_lengths=torch.tensor([6, 2, 4])).logits
    assert torch.equal(logits[:, 5:-1].argmax(-1), answer)


@pytest.mark.parametrize("text", GENERATING)
def test_decoding_does_not_reckon_the_edit(text, monkeypatch):
    calls = []
    change = Reft.change
    monkeypatch.setattr(Reft, "change", lambda self, h: calls.append(h.shape[:2]) or change(self, h))
    tuned, (batch, _) = strong(text), padded([6, 2, 4], "left", 6)
    generated(tuned, batch)
    positions = Positions.parse(tuned.method.positions)
    assert len(calls) == len(tuned.sites), "once per edit, in the pass that sees the prompt"
    n_edited = (positions.prefix + positions.suffix) // (1 if tuned.method.tied else 2)
    assert set(calls) == {(3, n_edited)}, "and only for the tokens that may be edited"


# Counts


class Layers:
    """A model that has layers of some width and nothing else."""

    def __init__(self, n_layers, width):
        self.n_layers, self.width = n_layers, width

    def sites(self, roles, layers=None):
        return [Site(f"layers.{i}", *roles, i, self.width, self.width) for i in layers or range(self.n_layers)]


@pytest.mark.parametrize(("text", "model", "count"), [
    ("loreft(rank=4, layers=[15], positions='l1')", Layers(32, 4096), 32_772),
    ("loreft(rank=8, positions='f7+l7')", Layers(32, 4096), 2_097_408),
    ("loreft(rank=4, layers=[3, 9, 18, 24], positions='f5+l5', tied=False)", Layers(32, 4096), 262_176),
    ("direft(rank=1)", Layers(12, 768), 18_444),
    ("loreft(rank=1)", Layers(12, 768), 18_444),
    ("loreft(rank=1, form='constant', layers=[15], positions='l1')", Layers(32, 4096), 4_097),
])  # fmt: skip
def test_the_number_of_parameters_is_that_of_the_paper(text, model, count):
    with torch.device("meta"):
        edits = [edit for _, edit in method_from(text).edits(model)]
    assert sum(parameter.numel() for edit in edits for parameter in edit.parameters()) == count


# Taking it off, training it


def test_it_is_not_merged_and_taken_off_leaves_the_base():
    tuned, (batch, _) = strong("loreft"), padded([6, 4], "right", 6)
    with pytest.raises(ConfigError, match=r"only changes of weights and biases .* `loreft` is more; keep it attached"):
        tuned.merge()
    plain, base = tuned.detach(), tiny_language_model("llama").model
    assert torch.equal(plain(**batch).logits, base(**batch).logits)
    assert plain.state_dict().keys() == base.state_dict().keys()


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "modernbert"])
@pytest.mark.parametrize("text", ["loreft(tied=False, dropout=0.3)", "direft(positions='all')"])
def test_recomputed_activations_give_the_same_gradients(family, text):
    def gradients(recomputes):
        tuned = attach(tiny_backbone(family), method_from(text))
        if recomputes:
            recompute_activations(tuned.backbone, tuned.context)
        torch.manual_seed(0)
        Bench(family).loss(tuned.train()).backward()
        return {name: parameter.grad for name, parameter in tuned.trained().items()}

    kept, recomputed = gradients(False), gradients(True)
    for name, gradient in kept.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=1e-5, atol=1e-7, msg=name)


def test_two_batches_before_one_backward_pass_are_recomputed_each_with_its_own_prompts():
    def gradients(recomputes):
        tuned = strong("loreft(positions='f2+l2')")
        if recomputes:
            recompute_activations(tuned.backbone, tuned.context)
        tuned.train()
        (first, _), (second, _) = padded([9, 4], "left", 9), padded([9, 6], "right", 9)
        one = tuned(**first, prompt_lengths=torch.tensor([3, 2])).logits
        other = tuned(**second, prompt_lengths=torch.tensor([7, 4])).logits
        (one.square().mean() + other.square().mean()).backward()
        return [parameter.grad for parameter in tuned.trained().values()]

    for kept, recomputed in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(recomputed, kept, rtol=1e-4, atol=1e-6)


def test_under_autocast_and_on_a_base_in_bf16_the_edit_is_reckoned_in_fp32():
    edit = edit_of("loreft", 64)
    h = torch.randn(2, 3, 64).bfloat16()
    plain = edit.change(h)
    assert plain.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(edit.change(h), plain)
    tuned = strong("loreft")
    tuned.model.bfloat16()
    batch, _ = padded([6, 4], "left", 6)
    tuned(**batch).logits.float().square().mean().backward()
    for name, parameter in tuned.trained().items():
        assert parameter.grad.dtype == torch.float32, name
        assert parameter.grad.isfinite().all(), name
    assert generated(tuned, batch).shape == (2, 10)
    tuned.bfloat16()  # values in bf16 too, as one may store them
    assert all(edit.p().dtype == torch.float32 for _, edit in tuned.placed())
    assert tuned(**batch).logits.isfinite().all()


@pytest.mark.slow
def test_compiled_it_answers_the_same():
    tuned, (batch, _) = strong("loreft(positions='f2+l2', tied=False)"), padded([9, 4, 1], "left", 9)
    wanted = tuned(**batch).logits
    compiled = torch.compile(tuned, backend="eager")
    for _ in range(2):
        torch.testing.assert_close(compiled(**batch).logits, wanted, atol=1e-5, rtol=1e-5)
    shorter, _ = padded([5, 2], "left", 5)
    torch.testing.assert_close(compiled(**shorter).logits, tuned(**shorter).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", [f for f in TINY_FAMILIES if f not in ("bert", "gpt2", "llama", "modernbert")])
def test_it_learns_in_every_family(family):
    CHECKS["a_step_lowers_the_loss"](method_from("loreft(tied=False)"), Bench(family))


def test_weight_decay_reaches_w_under_the_trainer_of_transformers_and_leaves_r_orthonormal(tmp_path):
    """Where the authors' code hides its values from the trainer, so that their weight decay was none."""
    tuned = strong("loreft(layers=[0, 1])")
    batch, rows = padded([9, 7, 6, 4], "right", 9)
    labels = batch["input_ids"].clone()
    for row, (first, _) in enumerate(rows):
        labels[row, first : first + 3] = -100
    labels[~batch["attention_mask"].bool()] = -100
    data = [{"input_ids": i, "attention_mask": m, "labels": n} for i, m, n in
            zip(batch["input_ids"], batch["attention_mask"], labels, strict=True)]  # fmt: skip
    options = transformers.TrainingArguments(
        tmp_path, max_steps=5, per_device_train_batch_size=2, learning_rate=1e-2, weight_decay=0.1, report_to=[],
        remove_unused_columns=False, save_strategy="no", use_cpu=True, disable_tqdm=True, label_names=["labels"],
    )  # fmt: skip
    trainer = transformers.Trainer(tuned, options, train_dataset=data)
    before = {name: value.clone() for name, value in tuned.trained().items()}
    trainer.train()
    decayed = {id(p) for group in trainer.optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    for name, parameter in tuned.trained().items():
        assert not torch.equal(parameter, before[name]), name
        assert (id(parameter) in decayed) == (parameter.ndim == 2), name
    for _, edit in tuned.placed():
        torch.testing.assert_close(edit.p().T @ edit.p(), torch.eye(4), atol=1e-5, rtol=0)


# Learning


def test_an_edit_of_33_parameters_makes_a_model_recite_64_tokens():
    """A constant of rank 1 at the last token of the prompt, on a model that knows three texts by heart."""
    backbone, draw = tiny_language_model("llama"), torch.Generator().manual_seed(0)
    texts = 10 + torch.randperm(240, generator=draw)[: 3 * 64].reshape(3, 64)

    def learn(model, parameters, n_steps, learning_rate, batch, **more):
        optimizer = torch.optim.Adam(parameters, lr=learning_rate)
        for _ in range(n_steps):
            ids = batch()
            logits = model(input_ids=ids, **more).logits[:, 1:-1]
            F.cross_entropy(logits.flatten(0, 1), ids[:, 2:].flatten()).backward()
            optimizer.step()
            optimizer.zero_grad()

    def any_prompt():
        return torch.cat([torch.randint(4, 10, (3, 2), generator=draw), texts], dim=1)

    learn(backbone.model, backbone.model.parameters(), 120, 5e-3, any_prompt)
    backbone.model.eval()
    prompt = torch.tensor([[4, 5]])
    batch = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt)}
    options = {**GREEDY, "max_new_tokens": 64}
    said = backbone.model.generate(**batch, **options)[0, 2:]
    for text in texts[(texts != said).any(dim=1)]:
        tuned = attach(backbone, method_from("loreft(rank=1, form='constant', positions='l1', layers=[1])"))
        assert tuned.n_trainable == 32 + 1
        whole = torch.cat([prompt, text[None]], dim=1)
        learn(tuned, tuned.trained().values(), 60, 0.1, lambda whole=whole: whole, prompt_lengths=torch.tensor([2]))
        assert torch.equal(generated(tuned, batch, max_new_tokens=64)[0], text)
        tuned.detach()
