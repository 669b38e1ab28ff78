"""Hardwired matrices of a flight processor: linear layers whose weights are wires beside the matrix engine.

A machine with wires is made for one model: its specification has the shapes of the matrices and a digest of their
weights, so that programs and hardware of another model refuse each other.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hw.spec.errors import InputError

__all__ = ["ACTIVATION_BITS", "WiredMatrix", "Wires", "WiredShape", "parse_shape"]

ACTIVATION_BITS = 8
_SHAPE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,6})")
_DIGEST_DIGITS = 32


@dataclass(frozen=True)
class WiredShape:
    """Inputs and outputs of a hardwired matrix; both with the padding that the machine wants."""

    inputs: int
    outputs: int

    def __str__(self) -> str:
        return f"{self.inputs}x{self.outputs}"


def parse_shape(text: str) -> WiredShape:
    """Shape written as inputs x outputs, for example 64x512.

    Raises
    ------
    ValueError
        If it is not written so.
    """
    found = _SHAPE.fullmatch(text)
    if found is None:
        raise ValueError(f"expected inputs x outputs, as 64x512, found {ascii(text)[:40]}")
    return WiredShape(int(found[1]), int(found[2]))


@dataclass(frozen=True)
class WiredMatrix:
    """Weights of one hardwired matrix.

    Attributes
    ----------
    name : str
        Of the tensor; for reports.
    values : int8 [outputs, inputs]
    scales : float16 [outputs]
        A weight is its value times the scale of its output.
    """

    name: str
    values: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float16]

    @property
    def shape(self) -> WiredShape:
        """Inputs and outputs."""
        outputs, inputs = self.values.shape
        return WiredShape(inputs, outputs)


@dataclass(frozen=True)
class Wires:
    """All hardwired matrices of a machine; instructions name them by number, from 1."""

    matrices: tuple[WiredMatrix, ...]

    @property
    def shapes(self) -> tuple[str, ...]:
        """Shapes in the order of the numbers, as a machine specification has them."""
        return tuple(str(matrix.shape) for matrix in self.matrices)

    @property
    def weights(self) -> int:
        """Hardwired weights, zeros and padding among them."""
        return sum(matrix.values.size for matrix in self.matrices)

    def to_bytes(self) -> bytes:
        """Values, then scales (little-endian), matrix by matrix: the section `wires` of a program file."""
        return b"".join(
            part
            for matrix in self.matrices
            for part in (matrix.values.tobytes(), matrix.scales.astype("<f2").tobytes())
        )

    @property
    def digest(self) -> str:
        """Identity of the weights: the beginning of their SHA-256."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:_DIGEST_DIGITS]

    @classmethod
    def from_bytes(
        cls, content: bytes, shapes: Sequence[WiredShape], names: Sequence[str]
    ) -> "Wires":
        """Inverse of `to_bytes`.

        Raises
        ------
        InputError
            If the length is not that of the shapes.
        """
        expected = sum((shape.inputs + 2) * shape.outputs for shape in shapes)
        if len(content) != expected:
            raise InputError(
                f"wires: expected {expected} bytes for these shapes, found {len(content)}"
            )
        matrices, position = [], 0
        for shape, name in zip(shapes, names, strict=True):
            values = np.frombuffer(content, np.int8, shape.inputs * shape.outputs, position)
            position += len(values)
            scales = np.frombuffer(content, "<f2", shape.outputs, position)
            position += 2 * len(scales)
            matrices.append(WiredMatrix(name, values.reshape(shape.outputs, -1), scales))
        return cls(tuple(matrices))
