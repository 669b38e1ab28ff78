"""What the packed checkpoints hold, unpacked: integers and the scales of groups of inputs."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from hw.spec.errors import InputError
from mapping.frontend.safetensors_file import Shape, TensorFolder

Codes = npt.NDArray[np.uint8]
Scales = npt.NDArray[np.float32]
Tensors = dict[str, npt.NDArray[np.generic]]
"""What is stored of one matrix, by the ends of the tensors' names."""


@dataclass(frozen=True)
class StoredMatrix:
    """A matrix that a checkpoint holds as small integers; weight = value * scale of its input's group.

    Members
    -------
    values : int8 [outputs, inputs]
        Codes less zero points; of FP4 twice the E2M1 numbers.
    scales : float32 [outputs, groups]
        Of FP4 half the stored ones.
    groups : int32 [inputs]
        The group of each input; ascending unless the checkpoint is in activation order.
    kind : str
        ``integer``, or ``fp4`` (E2M1).
    """

    values: npt.NDArray[np.int8]
    scales: Scales
    groups: npt.NDArray[np.int32]
    kind: Literal["integer", "fp4"] = "integer"

    def dequantize(self) -> npt.NDArray[np.float32]:
        """The weights, float32 [outputs, inputs]; exact, where runtimes round the product to FP16."""
        return self.values * self.scales[:, self.groups]


@dataclass(frozen=True)
class ZeroPointMatrix:
    """Unsigned codes with a zero point and a scale a group: weight = scale * (code - zero).

    Members
    -------
    codes : uint8 [outputs, inputs]
        0 to 15.
    zeros : uint8 [outputs, groups]
        0 to 15.
    scales : float32 [outputs, groups]
    groups : int32 [inputs]
        The group of each input.
    """

    codes: Codes
    zeros: Codes
    scales: Scales
    groups: npt.NDArray[np.int32]

    def stored(self) -> StoredMatrix:
        """The matrix with its zero points subtracted: integers of -15 to 15."""
        values = self.codes.astype(np.int8) - self.zeros.astype(np.int8)[:, self.groups]
        return StoredMatrix(values, self.scales, self.groups)


def consecutive_groups(inputs: int, group: int | None) -> npt.NDArray[np.int32]:
    """Group of each input where groups are neighbours; None: one group."""
    return (np.arange(inputs) // (group or inputs)).astype(np.int32)


def count_groups(inputs: int, group: int | None) -> int:
    """Groups of a row; the last one may be shorter."""
    return -(-inputs // (group or inputs))


def check_divides(files: TensorFolder, base: str, what: str, found: int, unit: int) -> None:
    """Refuse a matrix that a layout cannot hold.

    Raises
    ------
    InputError
        If `found` is no multiple of `unit`.
    """
    if found % unit:
        raise InputError(
            f"{files.folder}: tensor '{base}': {what}: expected a multiple of {unit}, found {found}"
        )


def check_shapes(
    files: TensorFolder, base: str, expected: dict[str, tuple[Shape, tuple[str, ...]]]
) -> None:
    """Check that the tensors of a matrix are there, by shape and type.

    Raises
    ------
    InputError
        If one is missing or is another.
    """
    for end, (shape, types) in expected.items():
        files.check(f"{base}.{end}", shape, types)
