"""Write safetensors files, bfloat16 included, which NumPy does not have."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hw.spec.output import atomic_write

_NAMES = {"f4": "F32", "f2": "F16", "u1": "U8", "i1": "I8", "i4": "I32"}


def write_safetensors(path: Path, tensors: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Write tensors of the types that packed checkpoints have; float32 in the shortest type that is exact.

    Raises
    ------
    InputError
        If the file cannot be written.
    ValueError
        If a tensor is of another type.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    parts: list[npt.NDArray[np.generic]] = []
    end = 0
    for name, tensor in tensors.items():
        dtype, data = _shortest(tensor) if tensor.dtype == np.float32 else _as_stored(tensor)
        header[name] = {
            "dtype": dtype,
            "shape": list(tensor.shape),
            "data_offsets": [end, end + data.nbytes],
        }
        parts.append(data)
        end += data.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(path) as part, part.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for data in parts:
            file.write(data.tobytes())


def _as_stored(tensor: npt.NDArray[np.generic]) -> tuple[str, npt.NDArray[np.generic]]:
    name = _NAMES.get(tensor.dtype.str[1:])
    if name is None:
        raise ValueError(f"a tensor must be of {', '.join(_NAMES)}, not {tensor.dtype}")
    return name, tensor.astype(tensor.dtype.newbyteorder("<"), copy=False)


def _shortest(tensor: npt.NDArray[np.generic]) -> tuple[str, npt.NDArray[np.generic]]:
    """BF16 or F16 where that is exact, else F32."""
    bits = np.ascontiguousarray(tensor).view(np.uint32)
    if not (bits & 0xFFFF).any():
        return "BF16", (bits >> 16).astype("<u2")
    with np.errstate(over="ignore"):
        halves = tensor.astype("<f2")
    if np.array_equal(halves.astype(np.float32), tensor):
        return "F16", halves
    return "F32", tensor.astype("<f4", copy=False)
