"""Rounding by outputs is GPTQ as the paper has it, and never worse than rounding to the nearest."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from model.calibration.rounding import (
    Codes,
    Moments,
    _best_scales,
    _nearest_plane,
    round_by_outputs,
    round_to_nearest,
)

W4, W5, W8 = Codes(-8, 7), Codes(-16, 15), Codes(-127, 127)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def drawn(rows: int, cols: int, tokens: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return weights, and inputs that depend on each other and are of unequal size."""
    random = torch.Generator().manual_seed(seed)
    mixed = torch.randn(cols, cols, generator=random) * 0.3 + torch.eye(cols)
    inputs = torch.randn(tokens, cols, generator=random) @ mixed
    inputs *= torch.randn(cols, generator=random).exp()
    return torch.randn(rows, cols, generator=random) * 0.05, inputs


def paper(weights: Tensor, hessian: Tensor, steps: Tensor, codes: Codes) -> Tensor:
    """Algorithm 1 of arXiv 2210.17323, without its blocks, in double precision."""
    left, steps = weights.double().clone(), steps.double()
    inverse = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    found = torch.zeros_like(left)
    for at in range(left.shape[1]):
        found[:, at] = (left[:, at] / steps[:, at]).round().clamp(codes.least, codes.most)
        error = (left[:, at] - found[:, at] * steps[:, at]) / inverse[at, at]
        left[:, at:] -= error[:, None] * inverse[at, at:]
    return found


@pytest.mark.parametrize("codes", [W4, W5, W8])
@pytest.mark.parametrize(("rows", "cols", "tokens"), [(5, 64, 300), (3, 172, 100), (9, 320, 900)])
def test_it_is_gptq(rows: int, cols: int, tokens: int, codes: Codes) -> None:
    weights, inputs = drawn(rows, cols, tokens)
    moments = Moments.of(inputs)
    scales = _best_scales(weights, codes, moments.weights)
    found, loss = _nearest_plane(weights, scales, codes, moments)
    hessian = inputs.double().T @ inputs.double()
    hessian.diagonal().add_(0.01 * hessian.diagonal().mean())
    first = moments.order.flip(0)  # GPTQ begins with the column of the largest moment
    steps = scales.float().repeat_interleave(64, 1)[:, :cols]
    expected = paper(weights[:, first], hessian[first][:, first], steps[:, first], codes)
    # A number that lies between two codes may be rounded otherwise in float32.
    assert (found[:, first] == expected).float().mean() > 0.97
    errors = (weights - found * steps).double()
    torch.testing.assert_close(
        loss.double(), ((errors @ hessian) * errors).sum(1), rtol=1e-3, atol=0
    )
    best = (weights[:, first] - expected * steps[:, first]).double()
    theirs = ((best @ hessian[first][:, first]) * best).sum()
    assert float(loss.sum()) == pytest.approx(float(theirs), rel=0.05)


@pytest.mark.parametrize("codes", [W4, W5, W8])
@pytest.mark.parametrize("seed", range(6))
def test_no_row_is_worse_than_rounded_to_the_nearest(codes: Codes, seed: int) -> None:
    weights, inputs = drawn(16, 60 + 20 * seed, (20, 100, 1000)[seed % 3], seed)
    moments = Moments.of(inputs)
    rounded, nearest = round_by_outputs(weights, codes, moments)
    before = nearest.loss
    loss = moments.loss(weights - rounded.values)
    plain = moments.loss(weights - round_to_nearest(weights, codes).values)
    torch.testing.assert_close(before, plain)
    torch.testing.assert_close(rounded.loss, loss, rtol=1e-3, atol=1e-6)
    assert (rounded.loss <= before).all()
    assert rounded.loss.sum() < 0.8 * before.sum()


@pytest.mark.parametrize("codes", [W4, W5, W8])
def test_codes_and_scales_are_those_of_the_format(codes: Codes) -> None:
    weights, inputs = drawn(8, 130, 200)
    weights[0], weights[1, :64], weights[2] = 0, 1e-9, weights[2] * 1e-6
    rounded, _ = round_by_outputs(weights, codes, Moments.of(inputs))
    assert rounded.scales.shape == (8, 3)
    assert rounded.scales.dtype == torch.float16
    assert (rounded.scales != 0).all()
    assert codes.least <= rounded.codes.min()
    assert rounded.codes.max() <= codes.most
    assert not rounded.values[0].any()


def test_inputs_that_are_all_zero_or_of_one_kind_are_no_error() -> None:
    weights, inputs = drawn(4, 100, 50)
    for odd in (torch.zeros_like(inputs), torch.ones_like(inputs), inputs[:1].expand(50, -1)):
        rounded, nearest = round_by_outputs(weights, W4, Moments.of(odd.clone()))
        assert (rounded.loss <= nearest.loss).all()
        assert rounded.values.isfinite().all()


def test_an_input_that_is_not_finite_is_refused() -> None:
    _, inputs = drawn(1, 64, 10)
    inputs[3, 5] = torch.nan
    with pytest.raises(ArithmeticError, match="not finite"):
        Moments.of(inputs)
