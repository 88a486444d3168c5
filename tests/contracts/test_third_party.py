"""A method written by somebody else: registered, it is a contestant, and the same suite tells good from bad."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from deltaproof.backbones import Backbone, Site
from deltaproof.methods import METHODS, Method, method, method_from
from deltaproof.methods.base import LinearMethod
from deltaproof.methods.edits import Edit, OutputEdit, WeightEdit
from deltaproof.testing import CHECKS, Bench, check_method


class ShiftAndScale(OutputEdit):
    """h' = g * h + s, with g = 1 and s = 0 at the start."""

    def __init__(self, site):
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(site.d_out)), nn.Parameter(torch.zeros(site.d_out))

    def forward(self, h, context):
        return self.gain * h + self.shift


class Outer(WeightEdit):
    """delta = u v^T, u = 0 at the start; the fast route is the inherited one."""

    def __init__(self, site):
        super().__init__()
        self.u, self.v = nn.Parameter(torch.zeros(site.d_out)), nn.Parameter(torch.empty(site.d_in))

    def start(self, weight, generator):
        nn.init.normal_(self.v, generator=generator)

    def delta(self, weight):
        return torch.outer(self.u, self.v)


def facts(name, **more):
    return {
        "idea": name, "equation": name, "paper": "none", "trains": "", "advice": "", "learning_rate": 1e-3,
        "name": name, "__module__": __name__, **more,
    }  # fmt: skip


def linear_method(name: str, edit: type[Edit], **more) -> Method:
    """A method that puts one edit of this kind on query and value."""

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        for site in self.sites(backbone):
            yield site, edit(site)

    kind = type(name, (LinearMethod,), facts(name, edits=edits, **more))
    return kind(roles=("query", "value"))


@pytest.fixture
def registered():
    """Registers methods for one test."""
    before = dict(METHODS._entries)
    yield lambda kind: method(kind.name)(type(kind)) and kind
    METHODS._entries.clear()
    METHODS._entries.update(before)


@pytest.mark.parametrize("edit", [ShiftAndScale, Outer])
def test_a_method_of_forty_lines_keeps_the_contract_everywhere(edit, registered):
    check_method(registered(linear_method("mine", edit)))


def test_a_registered_method_is_found_by_its_name(registered):
    mine = registered(linear_method("mine", Outer))
    assert method_from("mine(roles=['query', 'value'])") == mine


class StartsElsewhere(Outer):
    def start(self, weight, generator):
        nn.init.normal_(self.v, generator=generator)
        nn.init.ones_(self.u)


class FastRouteIsWrong(Outer):
    def contribution(self, x, output, weight, bias):
        return 2 * super().contribution(x, output, weight, bias)


class MovesTheBase(Outer):
    def after_step(self, step):
        self.buffer += 1

    def __init__(self, site):
        super().__init__(site)
        self.register_buffer("buffer", torch.zeros(1))


class IgnoresTheGenerator(Outer):
    def start(self, weight, generator):
        nn.init.normal_(self.v)


class SameForEverySeed(Outer):
    def start(self, weight, generator):
        torch.rand(1, generator=generator)
        nn.init.ones_(self.v)


class ForgetsItsState(Outer):
    def __init__(self, site):
        super().__init__(site)
        self.steps = 0

    def after_step(self, step):
        self.steps += 1

    def delta(self, weight):
        return (1 + self.steps) * super().delta(weight)


class HalfPrecision(Outer):
    def start(self, weight, generator):
        super().start(weight, generator)
        self.to(weight.dtype)


class CountsItsCalls(Outer):
    def __init__(self, site):
        super().__init__(site)
        self.calls = 0

    def contribution(self, x, output, weight, bias):
        self.calls += 1
        return self.calls * super().contribution(x, output, weight, bias)


class LeavesATensorBehind(Outer):
    def __init__(self, site):
        super().__init__(site)
        self.eye = torch.eye(site.d_in)

    def delta(self, weight):
        return super().delta(weight) @ self.eye


class Uphill(Outer):
    def delta(self, weight):
        return _Flip.apply(super().delta(weight))


class _Flip(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -1e4 * gradient


@pytest.mark.parametrize(
    ("edit", "check"),
    [
        (StartsElsewhere, "a_fresh_method_leaves_the_model_as_it_was"),
        (MovesTheBase, "only_what_it_declares_moves"),
        (FastRouteIsWrong, "the_contribution_is_the_delta"),
        (FastRouteIsWrong, "merged_it_answers_the_same"),
        (ForgetsItsState, "its_state_brings_the_answers_back"),
        (IgnoresTheGenerator, "the_seed_decides_the_start"),
        (SameForEverySeed, "the_seed_decides_the_start"),
        (HalfPrecision, "a_base_in_bf16_runs"),
        (HalfPrecision, "a_base_in_fp16_runs"),
        (ForgetsItsState, "interrupted_it_goes_on_to_the_same_bits"),
        (CountsItsCalls, "recomputed_it_has_the_same_gradients"),
        (FastRouteIsWrong, "it_adds_up_with_another"),
    ],
)
def test_the_suite_catches_a_broken_method(edit, check):
    with pytest.raises(AssertionError):
        CHECKS[check](linear_method("mine", edit), Bench())


def test_the_suite_catches_a_method_that_writes_into_the_base():
    class WritesIntoTheBase(Outer):
        def __init__(self, site):
            super().__init__(site)
            self.weight = []

        def start(self, weight, generator):
            super().start(weight, generator)
            self.weight.append(weight)

        def after_step(self, step):
            self.weight[0] += 1e-3

    with pytest.raises(AssertionError, match=r"the frozen `.*query\.weight` has moved"):
        CHECKS["only_what_it_declares_moves"](linear_method("mine", WritesIntoTheBase), Bench())
    with pytest.raises(AssertionError, match="is not what it was"):
        CHECKS["detached_it_leaves_no_trace"](linear_method("mine", WritesIntoTheBase), Bench())


def test_the_suite_catches_a_method_that_freezes_what_another_trains():
    class FreezesTheRest(Outer):
        def start(self, weight, generator):
            super().start(weight, generator)
            for module in self.around:
                module.requires_grad_(False)

    class Jealous(type(linear_method("mine", Outer))):
        def edits(self, backbone):
            for site in self.sites(backbone):
                edit = FreezesTheRest(site)
                edit.around = [backbone.module(norm) for norm in backbone.sites(["norm"])]
                yield site, edit

    with pytest.raises(AssertionError, match="what each trains alone is not what both train"):
        CHECKS["it_goes_with_another"](Jealous(roles=("query",)), Bench())


def test_the_suite_catches_what_does_not_move_with_the_model():
    with pytest.raises(RuntimeError, match="same dtype"):
        CHECKS["moved_and_back_it_answers_the_same"](linear_method("mine", LeavesATensorBehind), Bench())


def test_the_suite_catches_settings_that_nobody_checks(registered):
    """Here a rank that is larger than any matrix; what it would be good for is not asked."""
    more = {"rank": 4, "__annotations__": {"rank": int}}
    with pytest.raises(AssertionError, match=r"'rank': .*\} is accepted"):
        CHECKS["wrong_settings_are_refused"](registered(linear_method("mine", Outer, **more)), Bench())


def test_the_suite_catches_a_step_uphill():
    with pytest.raises(AssertionError, match="the loss went from"):
        CHECKS["a_step_lowers_the_loss"](linear_method("mine", Uphill), Bench())


def test_the_suite_catches_a_label_that_reads_as_something_else(registered):
    mine = registered(linear_method("mine", Outer, label=property(lambda self: "mine(layers=[0])")))
    with pytest.raises(AssertionError, match="reads as another method"):
        CHECKS["it_reads_back_as_written"](mine, Bench())


def test_check_method_names_the_check_and_the_family():
    with pytest.raises(AssertionError, match=r"`mine.*` on bert: a fresh method leaves the model as it was"):
        check_method(linear_method("mine", StartsElsewhere))
