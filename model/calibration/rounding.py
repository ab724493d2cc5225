"""Rounding a matrix so that its outputs change little: GPTQ (Frantar et al., arXiv 2210.17323).

A matrix W [rows, cols] is multiplied with inputs x, whose second moments are H = Σ x xᵀ. Rounding
it to Q changes the outputs by tr (W - Q) H (W - Q)ᵀ in all. GPTQ rounds one column after the other
and makes up for each one's error in the columns that are left. Here it is written as Babai's
nearest plane (Chen et al., arXiv 2507.18553, show that the two are the same): with H = L Lᵀ the
change is |(W - Q) L|², and from the last column to the first, each one's best value follows from
the errors of those after it. That needs no inverse of H, and L can take the place of H in memory.

Columns are put in ascending order of their moments, so that those that matter most come first.
Scales are fixed before any column is rounded.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from model.checkpoint.weights import GROUP

_COLUMNS_AT_ONCE = 128
_TOKENS_AT_ONCE = 1024
_SMALLEST_SCALE = 2.0**-24  # of fp16
_FEW = 64  # codes: with fewer, a scale that clips the largest values may be better
_DAMPING = 0.01  # of the mean moment, added to every moment; ten times as much where that is few


@dataclass(frozen=True)
class Codes:
    """Whole numbers that a format keeps, times a scale in fp16 for each group of columns."""

    least: int
    most: int


@dataclass(frozen=True)
class Rounded:
    """Rows of a matrix as codes and scales, and what that cost."""

    codes: Tensor  # int8 [rows, cols]
    scales: Tensor  # fp16 [rows, groups]
    loss: Tensor  # [rows]: the change of the outputs, squared and summed; 0 where not known

    def part(self, start: int, end: int) -> "Rounded":
        """Return some of the rows."""
        some = slice(start, end)
        return Rounded(self.codes[some], self.scales[some], self.loss[some])

    @property
    def values(self) -> Tensor:
        """The rows as float32, exactly as a baked file means them."""
        return self.codes.float() * _by_column(self.scales.float(), self.codes.shape[1])


@dataclass(frozen=True)
class Moments:
    """The second moments of a matrix's inputs, ready for rounding."""

    weights: Tensor  # [cols]: the diagonal of H
    order: Tensor  # [cols]: columns by ascending moments
    factor: Tensor  # [cols, cols]: L, of the columns in that order

    @classmethod
    def of(cls, inputs: Tensor) -> "Moments":
        """Take those of inputs [tokens, cols]; memory of cols² floats is needed.

        `ArithmeticError` when an input is not finite.
        """
        weights = torch.stack(
            [part.square().sum(0) for part in torch.split(inputs, _TOKENS_AT_ONCE)]
        )
        weights = weights.sum(0)
        if not weights.isfinite().all():
            raise ArithmeticError("an activation is not finite")
        order = weights.argsort(stable=True)
        damping = _DAMPING
        while (factor := _factor(inputs, order, damping * float(weights.mean()))) is None:
            damping *= 10
        return cls(weights, order, factor)

    def loss(self, errors: Tensor) -> Tensor:
        """Return what errors of weights [rows, cols] do to the outputs: squared, of each row."""
        return (errors[:, self.order] @ self.factor).square().sum(1)


def _factor(inputs: Tensor, order: Tensor, damping: float) -> Tensor | None:
    """Return L; None when the moments, as float32 has them, are not positive definite."""
    cols = inputs.shape[1]
    moments = torch.zeros(cols, cols)
    for part in torch.split(inputs, _TOKENS_AT_ONCE):
        part = part[:, order]
        moments.addmm_(part.T, part)
    # Inputs that are all 0 leave the outputs as they are: any damping will do.
    moments.diagonal().add_(damping or 1.0)
    # Column by column, as LAPACK has it, it is the same symmetric matrix, so L replaces it.
    factor = moments.T
    status = torch.zeros((), dtype=torch.int32)
    torch.linalg.cholesky_ex(factor, out=(factor, status))
    return None if status else factor


def round_to_nearest(weights: Tensor, codes: Codes) -> Rounded:
    """Round rows [rows, cols] as a bake without calibration does."""
    scales = _best_scales(weights, codes, torch.ones(weights.shape[1]))
    found = _nearest(weights, _by_column(scales.float(), weights.shape[1]), codes)
    return Rounded(found.to(torch.int8), scales, torch.zeros(len(weights)))


def round_by_outputs(weights: Tensor, codes: Codes, moments: Moments) -> tuple[Rounded, Rounded]:
    """Round rows by GPTQ; returns them, and what rounding to the nearest gives instead.

    A row for which GPTQ is no better is rounded to the nearest, so no row loses by it.
    """
    plain = round_to_nearest(weights, codes)
    before = moments.loss(weights - plain.values)
    plain = replace(plain, loss=before)
    scales = _best_scales(weights, codes, moments.weights)
    found, loss = _nearest_plane(weights, scales, codes, moments)
    better = loss < before
    return (
        Rounded(
            torch.where(better[:, None], found, plain.codes),
            torch.where(better[:, None], scales, plain.scales),
            torch.where(better, loss, before),
        ),
        plain,
    )


def _nearest_plane(
    weights: Tensor, scales: Tensor, codes: Codes, moments: Moments
) -> tuple[Tensor, Tensor]:
    """Return codes [rows, cols], and the loss of each row."""
    rows, cols = weights.shape
    order, factor = moments.order, moments.factor
    # Columns become rows, which lie together in memory.
    wanted = weights.T[order]
    steps = _by_column(scales.float(), cols).T[order]
    found = torch.empty(cols, rows, dtype=torch.int8)
    errors = torch.empty(cols, rows)
    loss = torch.zeros(rows)
    for end in range(cols, 0, -_COLUMNS_AT_ONCE):
        start = max(0, end - _COLUMNS_AT_ONCE)
        carried = factor[end:, start:end].T @ errors[end:]
        block = factor[start:end, start:end].contiguous()
        for at in range(end - 1, start - 1, -1):
            column, pivot = at - start, float(block[at - start, at - start])
            owed = block[column + 1 :, column] @ errors[at + 1 : end]
            target = wanted[at] + (carried[column] + owed) / pivot
            code = _nearest(target, steps[at], codes)
            rounded = code * steps[at]
            loss += (pivot * (target - rounded)).square()
            found[at] = code.to(torch.int8)
            torch.sub(wanted[at], rounded, out=errors[at])
    result = torch.empty_like(found)
    result[order] = found
    return result.T.contiguous(), loss


def _nearest(values: Tensor, scales: Tensor, codes: Codes) -> Tensor:
    return (values / scales).round_().clamp_(codes.least, codes.most)


def _best_scales(weights: Tensor, codes: Codes, importance: Tensor) -> Tensor:
    """Return the scale of each group with the least squared error, weighted by column; fp16."""
    rows, cols = weights.shape
    extra = -cols % GROUP
    values = pad(weights, (0, extra)).view(rows, -1, GROUP)
    importance = pad(importance, (0, extra)).view(1, -1, GROUP)
    least, most = values.amin(-1), values.amax(-1)
    # A negative scale swaps the sides, of which the one below 0 has more room.
    covering = (
        torch.maximum(least / codes.least, most / codes.most),
        -torch.maximum(most / -codes.least, least / -codes.most),
    )
    few = codes.most - codes.least < _FEW
    best, scales = torch.full_like(least, torch.inf), torch.empty_like(least)
    for factor in torch.linspace(0.62, 1.06, 23).tolist() if few else [1.0]:
        for largest in covering:
            tried = (largest * factor).half().float()
            tried = torch.where(
                tried.abs() < _SMALLEST_SCALE, largest.sign() * _SMALLEST_SCALE, tried
            )
            tried = torch.where(tried == 0, _SMALLEST_SCALE, tried)
            rounded = _nearest(values, tried[..., None], codes) * tried[..., None]
            error = (rounded.sub_(values).square_() * importance).sum(-1)
            better = error < best
            best = torch.where(better, error, best)
            scales = torch.where(better, tried, scales)
    return scales.half()


def _by_column(scales: Tensor, cols: int) -> Tensor:
    return scales.repeat_interleave(GROUP, 1)[:, :cols]
