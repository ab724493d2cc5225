"""Calibrating a checkpoint, layer by layer, on the activations of the quantised layers before.

In memory at a time: the activations of all tokens (of 8,192 at most: 128 MiB for each 4,096
columns), the second moments of one matrix's inputs, and some of its rows.
"""

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from model.baked.bake import W4, W5, W8, QuantisationError, bake, check_weights, matrix_format
from model.baked.card import CalibrationCard
from model.baked.file import BakedModel
from model.baked.progress import BakeProgress, no_progress
from model.calibration.block import attention
from model.calibration.folder import working_folder
from model.calibration.results import Results
from model.calibration.rounding import Codes, Moments, Rounded, round_by_outputs
from model.calibration.tokens import OWN, windows_of, written_by
from model.checkpoint.adapter import Adapter
from model.checkpoint.folder import Checkpoint
from model.checkpoint.weights import Floats, Reader
from model.errors import ModelError

CODES = {W8: Codes(-127, 127), W5: Codes(-16, 15), W4: Codes(-8, 7)}
_ROWS_AT_ONCE = 512
_WEIGHTS_AT_ONCE = 1 << 22  # while they are rounded: 16 MiB, of which some ten copies are needed
_METHOD = 1  # to be raised when results of former versions must not be used again


@dataclass(frozen=True)
class CalibratedError(QuantisationError):
    """What rounding cost a matrix; errors are relative to the root of the mean square."""

    weights_before: float = 0.0  # of the weights, had they been rounded to the nearest
    outputs_before: float = 0.0  # of the outputs on the calibration's tokens, likewise
    outputs: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """Calibrated matrices, in their working folder."""

    card: CalibrationCard
    errors: Mapping[str, CalibratedError]
    _results: Results

    def rows(self, name: str) -> Iterator[Floats] | None:
        """Yield a matrix's rows, which a bake keeps exactly; None for another tensor."""
        return self._rows(name) if name in self.errors else None

    def _rows(self, name: str) -> Iterator[Floats]:
        found = self._results.load(name)
        if found is None:
            raise ModelError(f"the calibrated {name} was damaged on the disk; bake again")
        rounded, _ = found
        for start in range(0, len(rounded.codes), _ROWS_AT_ONCE):
            yield _floats(rounded.part(start, start + _ROWS_AT_ONCE))


@contextmanager
def calibrated(
    checkpoint: Checkpoint,
    output: Path,
    *,
    bits: int,
    text: Sequence[int] | None = None,
    source: str = OWN,
    adapter: Adapter | None = None,
    progress: BakeProgress = no_progress,
) -> Iterator[Calibration]:
    """Calibrate a checkpoint, whose calibration is there until the block ends.

    `text` are a text's tokens, and `source` says what they are of; None for what the model writes
    itself. What was done stays beside the output when this is interrupted, or when the block does
    not end well, and is used again by a call with the same input. `progress` counts operations, in
    arbitrary units. `ModelError` as `bake`, and when the text is too short.
    """
    if checkpoint.gptq:
        raise ModelError(
            f"{checkpoint.folder} is quantised already ({checkpoint.gptq}); calibrate the model"
            " as it was before"
        )
    windows = None if text is None else windows_of(text, checkpoint.config.max_context)
    key = _key(checkpoint, adapter, bits, windows)
    with working_folder(output, key) as folder:
        results = Results(folder)
        if windows is None:
            windows = results.tokens() or _own_tokens(checkpoint, adapter, results, progress)
        else:
            progress("checking weights", 0, 1)
            check_weights(checkpoint, adapter)
        yield _calibrate(checkpoint, adapter, bits, windows, source, results, progress)


def _own_tokens(
    checkpoint: Checkpoint, adapter: Adapter | None, results: Results, progress: BakeProgress
) -> list[list[int]]:
    plain = results.folder / "plain.bloom"
    try:
        progress("8 bits, to write text with", 0, 1)
        bake(checkpoint, plain, adapter=adapter)
        windows = written_by(
            BakedModel(plain), lambda done, total: progress("writing text", done, total)
        )
    finally:
        with suppress(OSError):
            plain.unlink()
    results.keep_tokens(windows)
    return windows


def _calibrate(
    checkpoint: Checkpoint,
    adapter: Adapter | None,
    bits: int,
    windows: list[list[int]],
    source: str,
    results: Results,
    progress: BakeProgress,
) -> Calibration:
    with (
        torch.inference_mode(),
        Reader(checkpoint.folder) as reader,
        Reader((adapter or checkpoint).folder) as added,
    ):
        model = _Layers(checkpoint, adapter, bits, reader, added, results, progress)
        model.run(windows)
    before, after, power = map(sum, zip(*model.outputs, strict=True))
    card = CalibrationCard(
        tokens=sum(map(len, windows)),
        source=source,
        error_before=(before / power) ** 0.5 if power else 0.0,
        error_after=(after / power) ** 0.5 if power else 0.0,
    )
    return Calibration(card, model.errors, results)


class _Layers:
    """Runs tokens through the layers, each of whose matrices is rounded on its way."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        adapter: Adapter | None,
        bits: int,
        reader: Reader,
        added: Reader,
        results: Results,
        progress: BakeProgress,
    ) -> None:
        self._config, self._adapter, self._bits = checkpoint.config, adapter, bits
        self._infos = {tensor.name: tensor for tensor in checkpoint.tensors}
        self._reader, self._added = reader, added
        self._results, self._progress = results, progress
        self.errors: dict[str, CalibratedError] = {}
        # Of each matrix: the squared change of its outputs before and after, and their squares,
        # as shares of the latter, so that every matrix counts the same.
        self.outputs: list[tuple[float, float, float]] = []
        self._done, self._total = 0, 0

    def run(self, windows: list[list[int]]) -> None:
        """Take one window of tokens after the other through all layers, layer by layer."""
        config, count = self._config, sum(map(len, windows))
        shapes = [shape for shape in config.shapes().values() if len(shape) == 2][1:]
        self._total = sum(_work(rows, cols, count) for rows, cols in shapes)
        state = self._normed(
            self._embedded(torch.tensor([id_ for window in windows for id_ in window])),
            "word_embeddings_layernorm",
        )
        sizes = [len(window) for window in windows]
        for layer in range(config.layers):
            block = f"h.{layer}."
            fused = self._linear(
                self._normed(state, block + "input_layernorm"),
                block + "self_attention.query_key_value",
            )
            mixed = torch.cat([attention(part, config.heads) for part in torch.split(fused, sizes)])
            del fused
            state += self._linear(mixed, block + "self_attention.dense")
            del mixed
            inner = self._linear(
                self._normed(state, block + "post_attention_layernorm"),
                block + "mlp.dense_h_to_4h",
            )
            for part in torch.split(inner, _ROWS_AT_ONCE):
                part.copy_(gelu(part, approximate="tanh"))
            state += self._linear(inner, block + "mlp.dense_4h_to_h")
            del inner

    def _linear(self, inputs: Tensor, module: str) -> Tensor:
        """Round a matrix, or take what is there already; return its outputs once it is rounded."""
        name = f"{module}.weight"
        self._progress(name, self._done, self._total)
        rows, cols = self._infos[name].shape
        found = self._results.load(name)
        if found is None or tuple(found[0].codes.shape) != (rows, cols):
            found = self._round(inputs, name)
            self._results.save(name, *found)
        rounded, facts = found
        self.outputs.append((facts["outputs_before"] ** 2, facts["outputs"] ** 2, 1.0))
        self.errors[name] = CalibratedError(name=name, **facts)
        outputs = torch.empty(len(inputs), rows)
        bias = self._vector(f"{module}.bias")
        for start in range(0, rows, _ROWS_AT_ONCE):
            end = start + _ROWS_AT_ONCE
            part = rounded.part(start, end).values
            outputs[:, start:end] = torch.addmm(bias[start:end], inputs, part.T)
        self._done += _work(rows, cols, len(inputs))
        return outputs

    def _round(self, inputs: Tensor, name: str) -> tuple[Rounded, dict[str, Any]]:
        codes = CODES[matrix_format(name.partition(".")[2].partition(".")[2], self._bits)]
        try:
            moments = Moments.of(inputs)
        except ArithmeticError as error:
            raise ModelError(f"{name}: {error}; the weights are damaged") from None
        parts: list[Rounded] = []
        sums = dict.fromkeys(("before", "after", "power", "squares", "error", "error_before"), 0.0)
        largest = 0.0
        for weights in self._rows(name):
            rounded, plain = round_by_outputs(weights, codes, moments)
            errors = rounded.values.sub_(weights)
            for key, value in (
                ("before", plain.loss),
                ("after", rounded.loss),
                ("power", moments.loss(weights)),
                ("squares", weights.square()),
                ("error", errors.square()),
                ("error_before", plain.values.sub_(weights).square()),
            ):
                sums[key] += float(value.double().sum())
            largest = max(largest, float(errors.abs().max()))
            parts.append(rounded)
        rounded = Rounded(*(torch.cat([getattr(part, field) for part in parts])
                            for field in ("codes", "scales", "loss")))  # fmt: skip

        def relative(error: str, to: str) -> float:
            return float((sums[error] / sums[to]) ** 0.5) if sums[to] else 0.0

        return rounded, {
            "relative": relative("error", "squares"),
            "largest": largest,
            "weights_before": relative("error_before", "squares"),
            "outputs_before": relative("before", "power"),
            "outputs": relative("after", "power"),
        }

    def _rows(self, name: str) -> Iterator[Tensor]:
        rows = self._reader.rows(self._infos[name])
        if self._adapter:
            rows = self._adapter.merged(name, rows, self._added)
        for some in rows:
            yield from torch.split(_tensor(some), max(1, _WEIGHTS_AT_ONCE // some.cols))

    def _embedded(self, tokens: Tensor) -> Tensor:
        """Return the tokens' rows of the word embedding."""
        state, first = torch.empty(len(tokens), self._config.hidden_size), 0
        for some in self._reader.rows(self._infos["word_embeddings.weight"]):
            here = (tokens >= first) & (tokens < first + some.rows)
            state[here] = _tensor(some)[tokens[here] - first]
            first += some.rows
        return state

    def _normed(self, state: Tensor, module: str) -> Tensor:
        weight, bias = (self._vector(f"{module}.{part}") for part in ("weight", "bias"))
        return layer_norm(state, weight.shape, weight, bias, self._config.layer_norm_epsilon)

    def _vector(self, name: str) -> Tensor:
        return _tensor(self._reader.whole(self._infos[name]))[0]


def _work(rows: int, cols: int, tokens: int) -> int:
    """Return about how many operations calibrating a matrix takes, in millions."""
    return cols * (cols * (2 * tokens + cols // 3 + 8 * rows) + 2 * tokens * rows) // 10**6 + 1


def _tensor(floats: Floats) -> Tensor:
    found = torch.frombuffer(floats.values, dtype=torch.float32)
    return found.view(floats.rows, floats.cols)


def _floats(rounded: Rounded) -> Floats:
    rows, cols = rounded.codes.shape
    floats = Floats.empty(rows, cols)
    _tensor(floats).copy_(rounded.values)
    scales = (ctypes.c_float * rounded.scales.numel())()
    torch.frombuffer(scales, dtype=torch.float32).copy_(rounded.scales.flatten())
    return Floats(floats.values, rows, cols, scales)


def _key(
    checkpoint: Checkpoint, adapter: Adapter | None, bits: int, windows: list[list[int]] | None
) -> dict[str, Any]:
    """Return what results depend on: they are used again only where all of it is the same."""
    files = {checkpoint.folder / tensor.file for tensor in checkpoint.tensors}
    if adapter:
        files |= {path for path in adapter.folder.iterdir() if path.is_file()}
    states = ((path.resolve(), path.stat()) for path in sorted(files))
    return {
        "method": _METHOD,
        "torch": torch.__version__,
        "bits": bits,
        "config": repr(checkpoint.config),
        "files": [
            [str(path.resolve()), state.st_size, state.st_mtime_ns] for path, state in states
        ],
        "cut": checkpoint.cut and sha256(repr(checkpoint.cut.ids).encode()).hexdigest(),
        "tokens": windows,
    }
