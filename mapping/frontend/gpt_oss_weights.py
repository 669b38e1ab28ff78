"""The weights of a gpt-oss folder; experts in MXFP4 stay in their codes until somebody wants numbers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hw.spec.errors import InputError
from mapping.frontend.gpt_oss import (
    MXFP4_BLOCK,
    GptOssConfig,
    gpt_oss_shapes,
    is_expert_matrix,
)
from mapping.frontend.gpt_oss_original import Rows, original_name
from mapping.frontend.safetensors_file import Shape, TensorFolder
from mapping.frontend.weights import EMBEDDING

Weight = npt.NDArray[np.float32]

E2M1_MAGNITUDES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
"""Values of codes 0 to 7; codes 8 to 15 are their negatives (OCP Microscaling formats 1.0)."""

SCALE_BIAS = 127
NAN_SCALE = 0xFF


@dataclass(frozen=True)
class Mxfp4:
    """A tensor in MXFP4.

    Members
    -------
    codes : uint8 [..., inputs]
        E2M1 codes, 0 to 15.
    exponents : int16 [..., inputs / 32]
        Powers of two of the blocks, -127 to 127.
    """

    codes: npt.NDArray[np.uint8]
    exponents: npt.NDArray[np.int16]

    def values(self) -> Weight:
        """Return the numbers as float32 [..., inputs]; exact but for exponents below -126, which may round."""
        magnitudes = E2M1_MAGNITUDES[self.codes & 7]
        signed = np.where(self.codes & 8, -magnitudes, magnitudes)
        blocks = signed.reshape(*self.exponents.shape, MXFP4_BLOCK)
        return np.ldexp(blocks, self.exponents[..., None]).reshape(self.codes.shape)


def unpack_mxfp4(blocks: npt.NDArray[np.uint8], scales: npt.NDArray[np.uint8], label: str) -> Mxfp4:
    """Return the codes in stored ``blocks`` [..., inputs / 32, 16] with ``scales`` [..., inputs / 32].

    The low nibble of a byte is the element with the even index.

    Raises
    ------
    InputError
        If the shapes do not belong together, or a scale is the NaN of its format (0xFF).
    """
    if blocks.ndim < 2 or blocks.shape[-1] != MXFP4_BLOCK // 2 or blocks.shape[:-1] != scales.shape:
        raise InputError(
            f"{label}: shape: expected blocks [..., n, {MXFP4_BLOCK // 2}] with scales [..., n], "
            f"found {list(blocks.shape)} with {list(scales.shape)}"
        )
    broken = np.argwhere(scales == NAN_SCALE)
    if len(broken):
        place = [int(index) for index in broken[0]]
        raise InputError(f"{label}: expected finite scales, found the NaN scale 0xFF at {place}")
    codes = np.stack([blocks & 0xF, blocks >> 4], axis=-1).astype(np.uint8)
    inputs = scales.shape[-1] * MXFP4_BLOCK
    return Mxfp4(
        codes.reshape(*scales.shape[:-1], inputs), scales.astype(np.int16) - np.int16(SCALE_BIAS)
    )


def stored_gpt_oss_name(name: str) -> str:
    """Return the name that a weight has in a Hugging Face folder; expert matrices without ``_blocks``."""
    bare = name.endswith(("bias", "sinks")) or is_expert_matrix(name)
    whole = name if name == "lm_head" else f"model.{name}"
    return whole if bare else f"{whole}.weight"


class GptOssFolderWeights:
    """Weights read from the safetensors files of a gpt-oss folder, one at a time.

    Expert matrices are stored in MXFP4 (``_blocks`` and ``_scales``) or, in folders that were converted,
    as numbers with inputs before outputs. Names are those of Hugging Face, or those of the makers' own
    checkpoint (`mapping.frontend.gpt_oss_original`) if it has an ``embedding.weight``.

    Parameters
    ----------
    folder : Path
        The model's folder.
    config : GptOssConfig
        Says which weights there must be.

    Raises
    ------
    InputError
        If a weight is missing, has another shape or type, is one that the model does not use, or MXFP4
        blocks do not divide the inputs.
    """

    def __init__(self, folder: Path, config: GptOssConfig) -> None:
        self._files = TensorFolder(folder)
        self._shapes = gpt_oss_shapes(config)
        self._label = str(folder)
        self._original = original_name(EMBEDDING, config).name in self._files.entries
        self._places = {
            name: original_name(name, config) if self._original else Rows(stored_gpt_oss_name(name))
            for name in self._shapes
        }
        known: set[str] = set()
        for name in self._shapes:
            if self.in_mxfp4(name):
                for stored, shape in self._packed(name).items():
                    self._files.check(stored, shape, ("U8",))
                    known.add(stored)
            else:
                self._files.check(self._places[name].name, self._stored_shape(name))
                known.add(self._places[name].name)
        for name, entry in self._files.entries.items():
            if name not in known:
                raise InputError(
                    f"{entry.label}: expected only the weights of {config.architecture}, "
                    "found one that it does not use"
                )

    def in_mxfp4(self, name: str) -> bool:
        """Whether the folder holds this weight in MXFP4."""
        return is_expert_matrix(name) and self._packed_names(name)[0] in self._files.entries

    def load(self, name: str) -> Weight:
        """Return a weight as float32, matrices as [..., outputs, inputs]; raises `InputError` if damaged."""
        if self.in_mxfp4(name):
            return self.mxfp4(name).values()
        place = self._places[name]
        stored = self._files.load(place.name, self._stored_shape(name))
        if place.total is not None:
            return stored[place.first : place.first + self._shapes[name][0]]
        return np.ascontiguousarray(stored.swapaxes(1, 2)) if self._is_transposed(name) else stored

    def mxfp4(self, name: str) -> Mxfp4:
        """Return the codes of an expert matrix; raises `InputError` if a scale is NaN."""
        (blocks, blocks_shape), (scales, scales_shape) = self._packed(name).items()
        return unpack_mxfp4(
            self._files.load_bytes(blocks, blocks_shape),
            self._files.load_bytes(scales, scales_shape),
            f"{self._label}: tensor '{scales}'",
        )

    def _is_transposed(self, name: str) -> bool:
        return is_expert_matrix(name) and not self._original

    def _stored_shape(self, name: str) -> Shape:
        """Shape of the tensor that has a weight, where it is not in MXFP4."""
        shape, total = self._shapes[name], self._places[name].total
        if self._is_transposed(name):
            return (shape[0], shape[2], shape[1])
        return shape if total is None else (total, *shape[1:])

    def _packed_names(self, name: str) -> tuple[str, str]:
        mark = "." if self._original else "_"
        stored = self._places[name].name
        return f"{stored}{mark}blocks", f"{stored}{mark}scales"

    def _packed(self, name: str) -> dict[str, Shape]:
        """The two tensors of an expert matrix in MXFP4, with their shapes."""
        experts, outputs, inputs = self._shapes[name]
        blocks, scales = self._packed_names(name)
        if inputs % MXFP4_BLOCK:
            raise InputError(
                f"{self._label}: tensor '{blocks}': expected inputs in blocks of {MXFP4_BLOCK}, "
                f"found {inputs} inputs"
            )
        shape = (experts, outputs, inputs // MXFP4_BLOCK)
        return {blocks: (*shape, MXFP4_BLOCK // 2), scales: shape}
