"""The contract that every method keeps. Run it on your own: `check_method(MyMethod(rank=4))`, or each check as a test.

    @pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
    def test_my_method_keeps_the_contract(check):
        check(MyMethod(rank=4), Bench("llama"))

A check that does not concern a method (merging one that is no change of weights) passes. A method that must break one
says so in a class attribute, such as `starts_as_base = False`, and gives the reason in its docstring.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from deltaproof.backbones.sites import Site, bias_of, weight_of
from deltaproof.methods.base import METHODS, Method
from deltaproof.methods.combine import Together
from deltaproof.methods.edits import BranchEdit, Edit, ModelEdit, Unfreeze, Watch, WeightEdit
from deltaproof.methods.lora import LoRA
from deltaproof.methods.tuned import Tuned, attach
from deltaproof.testing.bench import Bench
from deltaproof.testing.endurance import (
    a_base_in_bf16_runs,
    a_base_in_fp16_runs,
    interrupted_it_goes_on_to_the_same_bits,
    moved_and_back_it_answers_the_same,
    recomputed_it_has_the_same_gradients,
)
from deltaproof.testing.writing import it_reads_back_as_written, wrong_settings_are_refused

Check = Callable[[Method, Bench], None]


def check_method(method: Method, families: tuple[str, ...] = ("bert", "gpt2", "llama", "modernbert")) -> None:
    """Run every check on tiny models of several families: plain, transposed, grouped and fused weights.

    Raises:
        AssertionError: the method breaks the contract; the message names check and family.
    """
    for family in families:
        for name, check in CHECKS.items():
            try:
                check(method, Bench(family))
            except AssertionError as error:
                raise AssertionError(f"`{method.label}` on {family}: {name.replace('_', ' ')}: {error}") from error


def a_fresh_method_leaves_the_model_as_it_was(method: Method, bench: Bench) -> None:
    """Unless the class says `starts_as_base = False`, the first forward pass answers like the base."""
    backbone = bench.backbone()
    with torch.no_grad():
        before = backbone.model.eval()(**bench.batch(backbone)).logits
    after = bench.answers(attach(backbone, method))
    if method.is_base_at_start:
        _assert_close(after, before, 1e-5)
    else:
        assert type(method).__doc__, "a method that does not start as the base gives the reason in its docstring"


def only_what_it_declares_moves(method: Method, bench: Bench) -> None:
    """After a few steps every tensor outside of `trained()` has the bytes that it had, and something has moved."""
    tuned = attach(bench.backbone(), method)
    trained = {id(parameter) for parameter in tuned.trained().values()}
    before = {name: value.detach().clone() for name, value in tuned.state_dict(keep_vars=True).items()}
    bench.train(tuned, n_steps=2, learning_rate=1e-2)
    for name, value in tuned.state_dict(keep_vars=True).items():
        if id(value) not in trained:
            assert torch.equal(value, before[name]), f"the frozen `{name}` has moved"
    moved = [name for name, value in tuned.trained().items() if not torch.equal(value, _initial(before, tuned, value))]
    assert moved, "nothing has moved"


def it_counts_what_it_trains(method: Method, bench: Bench) -> None:
    """`n_trainable` counts what wants a gradient, each parameter once; no more can be reached, no less is stored."""
    tuned = attach(bench.backbone(), method)
    wanted = sum({id(p): p.numel() for p in tuned.parameters() if p.requires_grad}.values())
    assert tuned.n_trainable == wanted, f"{tuned.n_trainable} counted, {wanted} want gradients"
    assert tuned.reachable_dimension() <= tuned.n_trainable, "a set cannot have more dimensions than parameters"
    stored = sum(tensor.numel() for tensor in tuned.state().values())
    assert stored >= tuned.n_trainable, "what is trained must be stored"


def the_contribution_is_the_delta(method: Method, bench: Bench) -> None:
    """The fast route gives x delta(W)^T + delta_bias(b), in evaluation and in training, and so does a changed input."""
    tuned = bench.tuned(method)
    draw = torch.Generator().manual_seed(0)
    for site, edit, weight, bias in _weight_edits(tuned):
        x, output = _in_and_out(tuned.backbone.module(site), site, weight, bias, draw)
        wanted = _affine(x, edit.delta(weight), edit.delta_bias(bias))
        for mode in (False, True) if not _drops(edit) else (False,):
            edit.train(mode)
            got = edit.contribution(x, output, weight, bias)
            _assert_close(got, wanted, 1e-4, f"at {site.name} with training {mode}")
            if edit.changes_input:
                _assert_close(F.linear(edit.changed_input(x), weight) - F.linear(x, weight), wanted, 1e-4, site.name)


def merged_it_answers_the_same(method: Method, bench: Bench) -> None:
    """Folding the change into the weights leaves the answers as they were, and no hook behind."""
    tuned = bench.tuned(method)
    if not tuned.mergeable:
        return
    attached = bench.answers(tuned)
    plain = tuned.merge().eval()
    with torch.no_grad():
        _assert_close(plain(**bench.batch(tuned.backbone)).logits, attached, 1e-4)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in plain.modules()), "a hook is left"


def detached_it_leaves_no_trace(method: Method, bench: Bench) -> None:
    """Without the edits the base is what it was, to the byte; methods that train it in place are excused."""
    tuned = bench.tuned(method)
    if any(isinstance(edit, Unfreeze | ModelEdit) for _, edit in tuned.placed()):
        return
    fresh = bench.backbone()
    plain = tuned.detach()
    for name, value in fresh.model.state_dict().items():
        if not name.startswith(fresh.head):
            assert torch.equal(plain.state_dict()[name], value), f"`{name}` is not what it was"


def its_state_brings_the_answers_back(method: Method, bench: Bench) -> None:
    """A fresh model with the same method and the stored state answers to the bit like the one that was trained."""
    trained = bench.tuned(method)
    state = {name: tensor.clone() for name, tensor in trained.state().items()}
    fresh = attach(bench.backbone(), method)
    fresh.load_state(state)
    assert torch.equal(bench.answers(fresh), bench.answers(trained)), "the answers differ"


def the_seed_decides_the_start(method: Method, bench: Bench) -> None:
    """The same seed gives the same bits, whatever was drawn before; another seed others, where anything is drawn."""
    one = attach(bench.backbone(), method, seed=1).state_dict()
    torch.rand(7)
    same = attach(bench.backbone(), method, seed=1).state_dict()
    other = attach(bench.backbone(), method, seed=2).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one), "the same seed gave another start"
    differ = any(not torch.equal(one[name], other[name]) for name in one)
    assert differ or not _draws(method, bench), "another seed gave the same start"


def it_adds_up_with_another(method: Method, bench: Bench) -> None:
    """On shared sites, changes of weights add up: with LoRA beside it, the merged weight is W plus both deltas."""
    if any(not isinstance(edit, WeightEdit) for _, edit in method.edits(bench.backbone())):
        return
    tuned = bench.tuned(Together(method, LoRA(rank=2)))
    if not tuned.mergeable:  # changes of biases that this model does not have
        return
    attached = bench.answers(tuned)
    wanted: dict[str, Tensor] = {}
    for site, edit, weight, _ in _weight_edits(tuned):
        wanted[site.name] = wanted.get(site.name, weight.clone()) + edit.delta(weight)
    sites = {site.name: site for site in tuned.sites if site is not None}
    with torch.no_grad():
        _assert_close(tuned.merge().eval()(**bench.batch(tuned.backbone)).logits, attached, 1e-4)
    for name, site in sites.items():
        _assert_close(weight_of(tuned.backbone.module(site), site), wanted[name], 1e-5, name)


def a_step_lowers_the_loss(method: Method, bench: Bench) -> None:
    """One small step of AdamW downhill."""
    tuned = attach(bench.backbone(), method)
    with torch.no_grad():
        before = float(bench.loss(tuned.eval()))
    bench.train(tuned, n_steps=1, learning_rate=1e-4)
    with torch.no_grad():
        after = float(bench.loss(tuned.eval()))
    assert after < before, f"the loss went from {before:.6f} to {after:.6f}"


def it_goes_with_another(method: Method, bench: Bench) -> None:
    """Beside trained norms, whichever is named first: all that each trains alone is trained, and answers are finite.

    Changes of weights, branches and what is trained in place know no order: the same values give the same answers.
    """
    other = METHODS["ln_tune"]()
    tuned = attach(bench.backbone(), Together(method, other))
    if any(isinstance(edit, ModelEdit) for _, edit in tuned.placed()):
        return  # the names of what is trained are those of the code that wraps the model
    alone = [attach(bench.backbone(), one).trained().keys() for one in (method, other)]
    assert tuned.trained().keys() == alone[0] | alone[1], "what each trains alone is not what both train"
    bench.train(tuned, n_steps=3, learning_rate=1e-2)
    answers = bench.answers(tuned)
    assert answers.isfinite().all(), "an answer is not finite"
    if all(isinstance(edit, WeightEdit | BranchEdit | Unfreeze | Watch) for edit in tuned.edits):
        turned = attach(bench.backbone(), Together(other, method))
        turned.model.load_state_dict(tuned.model.state_dict())
        for edit, same in zip(_turned(tuned, len(list(other.edits(tuned.backbone)))), turned.edits, strict=True):
            same.load_state_dict(edit.state_dict())
        _assert_close(bench.answers(turned), answers, 1e-5, "in the other order")


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        a_fresh_method_leaves_the_model_as_it_was,
        only_what_it_declares_moves,
        it_counts_what_it_trains,
        the_contribution_is_the_delta,
        merged_it_answers_the_same,
        detached_it_leaves_no_trace,
        its_state_brings_the_answers_back,
        the_seed_decides_the_start,
        a_base_in_bf16_runs,
        a_base_in_fp16_runs,
        moved_and_back_it_answers_the_same,
        it_adds_up_with_another,
        it_goes_with_another,
        a_step_lowers_the_loss,
        recomputed_it_has_the_same_gradients,
        interrupted_it_goes_on_to_the_same_bits,
        it_reads_back_as_written,
        wrong_settings_are_refused,
    )
}
"""The checks by name."""


def _turned(tuned: Tuned, n_last: int) -> Iterator[Edit]:
    """The edits with the last ones first."""
    edits = [edit for _, edit in tuned.placed()]
    yield from edits[len(edits) - n_last :]
    yield from edits[: len(edits) - n_last]


def _weight_edits(tuned: Tuned) -> Iterator[tuple[Site, WeightEdit, Tensor, Tensor | None]]:
    """Each change of a weight with its site, the frozen weight and the frozen bias."""
    for site, edit in tuned.placed():
        if isinstance(edit, WeightEdit) and site is not None:
            module = tuned.backbone.module(site)
            bias = bias_of(module, site)
            yield site, edit, weight_of(module, site).detach(), None if bias is None else bias.detach()


@torch.no_grad()
def _in_and_out(
    module: torch.nn.Module, site: Site, weight: Tensor, bias: Tensor | None, draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    """An input of the site and its frozen output; that of a norm is normalised already, which it leaves as it is."""
    x = torch.randn(2, 3, site.d_in, generator=draw)
    if weight.ndim == 2:
        return x, F.linear(x, weight, bias)
    x = F.layer_norm(x, x.shape[-1:])
    return x, module.forward(x)


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b; the weight of a norm, (d,), multiplies each feature of x by its own."""
    if weight.ndim == 2:
        return F.linear(x, weight, bias)
    return x * weight if bias is None else x * weight + bias


def _drops(edit: Edit) -> bool:
    return any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in edit.modules())


def _draws(method: Method, bench: Bench) -> bool:
    """Whether the method's start values are drawn: whether a start moves the parameters of an edit just made."""
    tuned = attach(bench.backbone(), method)
    for site, edit in tuned.placed():
        if isinstance(edit, ModelEdit):
            continue  # it draws for its code, which may not need it
        generator = torch.Generator().manual_seed(0)
        before = generator.get_state()
        weight = weight_of(tuned.backbone.module(site), site).detach() if site and site.has_weight else None
        edit.start(weight, generator)
        if not torch.equal(generator.get_state(), before):
            return True
    return False


def _initial(before: dict[str, Tensor], tuned: Tuned, parameter: Tensor) -> Tensor:
    name = next(name for name, value in tuned.state_dict(keep_vars=True).items() if value is parameter)
    return before[name]


def _assert_close(got: Tensor, wanted: Tensor, tolerance: float, where: str = "") -> None:
    torch.testing.assert_close(
        got, wanted, rtol=tolerance, atol=tolerance, msg=lambda message: f"{where}: {message}" if where else message
    )
