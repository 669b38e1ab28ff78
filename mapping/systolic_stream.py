"""Lowering of one product to the streams of a systolic array, and results back to a matrix."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emulator.systolic_gemm import Gemm, Tiling, Work, groups, works
from emulator.systolic_values import Operands
from hw.spec.systolic import SystolicSpec

__all__ = ["Beat", "Streams", "collect", "lower_gemm"]

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Beat:
    """One beat of the stream `i`; `weights` is None weight stationary."""

    activations: Codes
    weights: Codes | None
    first: bool
    last: bool
    opens: bool
    closes: bool
    address: int


@dataclass(frozen=True)
class Streams:
    """Everything that goes into an array for one product, in order, and what comes out.

    Members
    -------
    beats : list of Beat
    weights : list of int64 [columns]
        Rows of weights; weight stationary only.
    scales : list of (scale, zero, channel scale), each int64 [columns]
        Empty without dequantization.
    token_scales : list of int
        FP32 bits; empty without dequantization.
    results : list of (row, first column, end column)
        Of each row of outputs; the row is None where it only fills a tile.
    """

    beats: list[Beat]
    weights: list[Codes]
    scales: list[tuple[Codes, Codes, Codes]]
    token_scales: list[int]
    results: list[tuple[int | None, int, int]]


def lower_gemm(spec: SystolicSpec, gemm: Gemm, tiling: Tiling, operands: Operands) -> Streams:
    """Streams of one product; what does not fill the array is padded with zeros.

    Raises
    ------
    InputError
        If the array cannot hold the blocks of the tiling.
    """
    streams = Streams([], [], [], [], [])
    for work in works(spec, gemm, tiling):
        if spec.output_stationary:
            _lower_tile(spec, work, operands, streams)
        else:
            _lower_pass(spec, work, operands, streams)
    if not spec.dequantizes:
        streams.token_scales.clear()
        streams.scales.clear()
    return streams


def collect(
    streams: Streams, rows: list[list[int]], shape: tuple[int, int]
) -> npt.NDArray[np.uint32]:
    """The matrix [m, n] of outputs from rows as they came out of the array."""
    outputs = np.zeros(shape, np.uint32)
    for (row, first, end), values in zip(streams.results, rows, strict=True):
        if row is not None:
            outputs[row, first:end] = values[: end - first]
    return outputs


def _padded(values: Codes, length: int) -> Codes:
    return np.pad(values, (0, length - len(values)))


def _scales(spec: SystolicSpec, work: Work, beat: int, o: Operands) -> tuple[Codes, Codes, Codes]:
    group, columns = beat // spec.group_size, slice(work.n0, work.n1)
    parts = o.scales[group, columns], o.zeros[group, columns], o.channel_scales[columns]
    scale, zero, channel = (_padded(part, spec.columns) for part in parts)
    return scale, zero, channel


def _lower_tile(spec: SystolicSpec, work: Work, operands: Operands, streams: Streams) -> None:
    for start, end in groups(spec, work):
        streams.scales.append(_scales(spec, work, start, operands))
        cut = not spec.dequantizes and end % spec.group_size and not work.closes
        for beat in range(start, end):
            streams.beats.append(
                Beat(
                    _padded(operands.activations[work.m0 : work.m1, beat], spec.rows),
                    _padded(operands.weights[beat, work.n0 : work.n1], spec.columns),
                    beat % spec.group_size == 0,
                    beat == end - 1 and not cut,
                    work.opens and start == work.k0,
                    work.closes and end == work.k1,
                    work.address,
                )
            )
    if work.closes:
        # The lowest row leaves first.
        for row in reversed(range(work.m0, work.m0 + spec.rows)):
            inside = row < work.m1
            streams.results.append((row if inside else None, work.n0, work.n1))
            streams.token_scales.append(int(operands.token_scales[row]) if inside else 0)


def _lower_pass(spec: SystolicSpec, work: Work, operands: Operands, streams: Streams) -> None:
    streams.scales.append(_scales(spec, work, work.k0, operands))
    for row in reversed(range(spec.rows)):
        beat = work.k0 + row
        inside = operands.weights[beat : beat + (beat < work.k1), work.n0 : work.n1]
        flat = inside[0] if len(inside) else np.zeros(0, np.int64)
        streams.weights.append(_padded(flat, spec.columns))
    for row in range(work.m0, work.m1):
        activations = _padded(operands.activations[row, work.k0 : work.k1], spec.rows)
        first, last = row == work.m0, row == work.m1 - 1
        address = work.address + row - work.m0
        streams.beats.append(Beat(activations, None, first, last, work.opens, work.closes, address))
        if work.closes:
            streams.results.append((row, work.n0, work.n1))
            streams.token_scales.append(int(operands.token_scales[row]))
