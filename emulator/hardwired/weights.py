"""Matrices of small integers to be hardwired: synthetic ones, users' arrays, and MXFP4 as checkpoints hold it."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hw.spec.errors import InputError

__all__ = [
    "FORMATS",
    "SmallWeights",
    "decode_mxfp4",
    "load_array",
    "quantize_mxfp4",
    "synthetic",
]

Integers = npt.NDArray[np.int64]

FORMATS = ("mxfp4", "int4", "int3", "ternary")
E2M1_TWICE = np.array([0, 1, 2, 3, 4, 6, 8, 12])
"""Magnitudes of E2M1, times two."""
E2M1_BITS = 4
MX_BLOCK = 32
MX_BIAS = 127
MX_NAN = 255
INTEGER_GROUP = 128
LARGEST_ARRAY = 1 << 28
"""Elements of a user's array; more is a mistake."""


@dataclass(frozen=True)
class SmallWeights:
    """Weights ``values * 2**exponents``.

    Parameters
    ----------
    values : int64 [outputs, inputs]
    exponents : int64 [outputs, blocks]
        Of blocks of neighbouring inputs, which divide a row evenly.
    source : str
        Where they come from, for reports.
    """

    values: Integers
    exponents: Integers
    source: str

    def integers(self) -> Integers:
        """Weights as integers, in units of the smallest scale of each row."""
        taps = self.exponents - self.exponents.min(axis=1, keepdims=True)
        spread = int(taps.max(initial=0))
        if spread > 8:
            row = int(taps.max(axis=1).argmax())
            raise InputError(
                f"{self.source}: row {row}: block scales are {spread} binades apart; expected at most 8"
            )
        repeat = self.values.shape[1] // taps.shape[1]
        return self.values << np.repeat(taps, repeat, axis=1)

    def shares(self) -> dict[int, float]:
        """Share of each magnitude but zero among the weights."""
        magnitudes, counts = np.unique(np.abs(self.values), return_counts=True)
        pairs = zip(magnitudes.tolist(), counts.tolist(), strict=True)
        return {value: count / self.values.size for value, count in pairs if value}


def synthetic(outputs: int, inputs: int, kind: str, seed: int = 1) -> SmallWeights:
    """Gaussian weights in a small format.

    MXFP4 has a power-of-two scale for each block of 32 inputs; INT4 and INT3 one scale for each group of
    128, by its largest magnitude, which is left out here; ternary weights are rounded by their mean
    magnitude. Groups are shorter where 32 or 128 do not divide the inputs.

    Raises
    ------
    InputError
        If the format is not known or the shape is empty.
    """
    if kind not in FORMATS:
        raise InputError(f"format: expected one of {', '.join(FORMATS)}, found {kind!r}")
    if min(outputs, inputs) < 1:
        raise InputError(f"shape: expected 1 or more inputs and outputs, found {inputs}x{outputs}")
    gaussian = np.random.default_rng(seed).standard_normal((outputs, inputs))
    source = f"synthetic Gaussian {kind}, seed {seed}"
    if kind == "mxfp4":
        values, exponents = quantize_mxfp4(gaussian, math.gcd(inputs, MX_BLOCK))
        return SmallWeights(values, exponents, source)
    if kind == "ternary":
        scale = np.abs(gaussian).mean()
        values = np.rint(gaussian / scale).clip(-1, 1)
    else:
        top = 7 if kind == "int4" else 3
        groups = gaussian.reshape(outputs, -1, math.gcd(inputs, INTEGER_GROUP))
        scale = np.abs(groups).max(axis=2, keepdims=True) / top
        values = np.rint(groups / scale).clip(-top - 1, top).reshape(outputs, inputs)
    return SmallWeights(values.astype(np.int64), np.zeros((outputs, 1), np.int64), source)


def quantize_mxfp4(weights: npt.NDArray[np.float64], block: int) -> tuple[Integers, Integers]:
    """Weights as E2M1 times two, and exponents of their blocks.

    The scale of a block is 2**(floor(log2(largest)) - 2), so that elements saturate at 6; elements are
    rounded to the nearest, ties to the even code.

    Returns
    -------
    int64 [outputs, inputs], int64 [outputs, blocks]
        A weight is about ``values * 2**(exponent - 1)``.
    """
    outputs, inputs = weights.shape
    blocks = np.abs(weights).reshape(outputs, inputs // block, block)
    largest = blocks.max(axis=2)
    exponents = np.frexp(np.where(largest > 0, largest, 1.0))[1].astype(np.int64) - 3
    scaled = 2 * blocks / 2.0 ** exponents[:, :, None]
    between = (E2M1_TWICE[1:] + E2M1_TWICE[:-1]) / 2
    codes = np.searchsorted(between, scaled, side="left")
    # On a tie `left` gives the lower code; it is taken if it is even.
    tie = (codes < len(between)) & (scaled == between[np.minimum(codes, len(between) - 1)])
    codes += tie & (codes % 2 == 1)
    magnitudes = E2M1_TWICE[codes].reshape(outputs, inputs)
    return np.where(weights < 0, -magnitudes, magnitudes), exponents


def decode_mxfp4(
    blocks: npt.NDArray[np.uint8], scales: npt.NDArray[np.uint8], source: str
) -> SmallWeights:
    """MXFP4 as gpt-oss checkpoints hold it.

    Parameters
    ----------
    blocks : uint8 [outputs, blocks, 16]
        Two codes a byte, the even element in the low nibble.
    scales : uint8 [outputs, blocks]
        E8M0: 2**(scale - 127).
    source : str
        Named in messages.

    Raises
    ------
    InputError
        If shapes do not fit, or a scale is NaN.
    """
    if blocks.ndim != 3 or blocks.shape[2] * 2 != MX_BLOCK or blocks.shape[:2] != scales.shape:
        raise InputError(
            f"{source}: expected blocks of [outputs, blocks, 16] and scales of [outputs, blocks], "
            f"found {list(blocks.shape)} and {list(scales.shape)}"
        )
    nan = np.argwhere(scales == MX_NAN)
    if len(nan):
        row, block = nan[0].tolist()
        raise InputError(
            f"{source}: scale of row {row}, block {block}: expected a power of two, found NaN (0xff)"
        )
    codes = np.stack([blocks & 0xF, blocks >> E2M1_BITS], axis=-1).reshape(len(blocks), -1)
    magnitudes = E2M1_TWICE[codes & 7]
    values = np.where(codes & 8, -magnitudes, magnitudes)
    # The values are doubled, so the scales are halved.
    return SmallWeights(values, scales.astype(np.int64) - MX_BIAS - 1, source)


def load_array(path: Path) -> SmallWeights:
    """A user's matrix of integers, a row for each output; nothing in the file is executed.

    Raises
    ------
    InputError
        If it is no NumPy array, holds objects, is not two-dimensional, or has other numbers than integers.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            readers = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }
            if version not in readers:
                raise InputError(f"{path}: expected .npy version 1 or 2, found {version}")
            shape, _, dtype = readers[version](file)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: expected a NumPy array (.npy): {error}") from error
    if dtype.kind not in "iu":
        raise InputError(f"{path}: expected integers, found {dtype}")
    if len(shape) != 2 or 0 in shape:
        raise InputError(f"{path}: expected [outputs, inputs], found a shape of {list(shape)}")
    if math.prod(shape) > LARGEST_ARRAY:
        raise InputError(
            f"{path}: expected at most {LARGEST_ARRAY} weights, found {math.prod(shape)}"
        )
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(
            f"{path}: expected {list(shape)} integers, found a damaged file"
        ) from error
    if array.size and (int(array.max()) > 1 << 20 or int(array.min()) < -(1 << 20)):
        raise InputError(f"{path}: expected small weights, found {int(np.abs(array).max())}")
    values = array.astype(np.int64)
    return SmallWeights(values, np.zeros((len(values), 1), np.int64), str(path))
