"""What is added in few operations is what autograd makes of the formula, for one lane and for several."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from deltaproof.methods.low_rank import add_low_rank


def tensors(n_lanes: int, ranks: tuple[int, ...], dtype: torch.dtype = torch.float64):
    torch.manual_seed(0)
    output, x = torch.randn(3 * n_lanes, 4, 6), torch.randn(3 * n_lanes, 4, 5)
    factors = [(torch.randn(rank, 5), torch.randn(6, rank)) for rank in ranks]
    return [each.to(dtype).requires_grad_() for each in (output, x, *(a for a, _ in factors), *(b for _, b in factors))]


def quick(output, x, *factors):
    n = len(factors) // 2
    return add_low_rank(output, x, list(zip(factors[:n], factors[n:], strict=True)))


def plain(output, x, *factors):
    n = len(factors) // 2
    parts = zip(x.chunk(n), factors[:n], factors[n:], strict=True)
    return output + torch.cat([F.linear(F.linear(part, a), b) for part, a, b in parts])


@pytest.mark.parametrize("ranks", [(2,), (2, 2), (3, 1, 2)], ids=str)
def test_values_and_gradients_are_those_of_the_formula(ranks):
    given = tensors(len(ranks), ranks)
    torch.testing.assert_close(quick(*given), plain(*given))
    assert torch.autograd.gradcheck(quick, given)


@pytest.mark.parametrize("frozen", [0, 1, 2, 3])
def test_what_needs_no_gradient_gets_none(frozen):
    given = tensors(1, (2,))
    given[frozen].requires_grad_(False)
    quick(*given).sum().backward()
    got = [each.grad for each in given]
    for each in given:
        each.grad = None
    plain(*given).sum().backward()
    for one, other in zip(got, given, strict=True):
        assert (one is None) == (other.grad is None)
        if one is not None:
            torch.testing.assert_close(one, other.grad)


def test_under_autocast_it_is_autocasts_result_but_for_rounding():
    given = tensors(2, (2, 3), torch.float32)
    given[0] = given[0].detach().bfloat16().requires_grad_()
    gradients = []
    for way in (quick, plain):
        with torch.autocast("cpu", torch.bfloat16):
            result = way(*given)
        assert result.dtype == torch.bfloat16
        result.float().square().sum().backward()
        gradients.append([each.grad for each in given])
        for each in given:
            each.grad = None
    for one, other in zip(*gradients, strict=True):
        assert one.dtype == other.dtype
        assert (one - other).norm() <= 0.02 * other.norm()


def test_without_autocast_it_is_reckoned_in_the_precision_of_the_factors():
    given = tensors(2, (2, 3), torch.float32)
    half = given[0].detach().bfloat16()
    wide = half.float() + (plain(*given) - given[0])
    assert (quick(half, *given[1:]).float() - wide).abs().max() <= 0.02 * wide.abs().max()


def test_without_gradients_it_answers_alike_and_forward_derivatives_pass():
    given = tensors(2, (2, 3))
    with_gradients = quick(*given)
    with torch.no_grad():
        assert torch.equal(quick(*given), with_gradients)
        with forward_ad.dual_level():
            along = forward_ad.make_dual(given[1], torch.ones_like(given[1]))
            slope = forward_ad.unpack_dual(quick(given[0], along, *given[2:])).tangent
    further = plain(given[0], given[1] + 1, *given[2:])
    torch.testing.assert_close(slope, further - plain(*given))


@pytest.mark.parametrize("trained", ["none", "weight", "bias"])
@pytest.mark.parametrize("ranks", [(2,), (3, 1, 2)], ids=str)
def test_of_a_frozen_map_the_input_has_its_gradient_through_both(trained, ranks):
    _, x, *factors = tensors(len(ranks), ranks)
    module = torch.nn.Linear(5, 6).double().requires_grad_(False)
    if trained != "none":
        getattr(module, trained).requires_grad_(True)
    wanted = plain(F.linear(x, module.weight, module.bias), x, *factors)
    learned = [x, *factors, *(each for each in module.parameters() if each.requires_grad)]
    n = len(ranks)
    got = add_low_rank(module(x), x, list(zip(factors[:n], factors[n:], strict=True)), module)
    torch.testing.assert_close(got, wanted)
    gradients = [torch.autograd.grad(each.square().sum(), learned) for each in (got, wanted)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
