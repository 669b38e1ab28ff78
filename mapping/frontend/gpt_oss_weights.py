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
from mapping.frontend.safetensors_file import Shape, TensorFolder

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
    """Return the name that a weight other than an MXFP4 one has in a checkpoint."""
    bare = name.endswith(("bias", "sinks")) or is_expert_matrix(name)
    whole = name if name == "lm_head" else f"model.{name}"
    return whole if bare else f"{whole}.weight"


class GptOssFolderWeights:
    """Weights read from the safetensors files of a gpt-oss folder, one at a time.

    Expert matrices are stored in MXFP4 (``_blocks`` and ``_scales``) or, in folders that were converted,
    as numbers with inputs before outputs.

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
        known: set[str] = set()
        for name, shape in self._shapes.items():
            stored = stored_gpt_oss_name(name)
            if self.in_mxfp4(name):
                blocks, scales = self._packed_shapes(name)
                self._files.check(f"{stored}_blocks", blocks, ("U8",))
                self._files.check(f"{stored}_scales", scales, ("U8",))
                known |= {f"{stored}_blocks", f"{stored}_scales"}
                continue
            if is_expert_matrix(name):
                shape = (shape[0], shape[2], shape[1])
            self._files.check(stored, shape)
            known.add(stored)
        for name, entry in self._files.entries.items():
            if name not in known:
                raise InputError(
                    f"{entry.label}: expected only the weights of {config.architecture}, "
                    "found one that it does not use"
                )

    def in_mxfp4(self, name: str) -> bool:
        """Whether the folder holds this weight in MXFP4."""
        return is_expert_matrix(name) and (
            f"{stored_gpt_oss_name(name)}_blocks" in self._files.entries
        )

    def load(self, name: str) -> Weight:
        """Return a weight as float32, matrices as [..., outputs, inputs]; raises `InputError` if damaged."""
        if self.in_mxfp4(name):
            return self.mxfp4(name).values()
        shape = self._shapes[name]
        if not is_expert_matrix(name):
            return self._files.load(stored_gpt_oss_name(name), shape)
        transposed = self._files.load(stored_gpt_oss_name(name), (shape[0], shape[2], shape[1]))
        return np.ascontiguousarray(transposed.swapaxes(1, 2))

    def mxfp4(self, name: str) -> Mxfp4:
        """Return the codes of an expert matrix; raises `InputError` if a scale is NaN."""
        blocks, scales = self._packed_shapes(name)
        stored = stored_gpt_oss_name(name)
        return unpack_mxfp4(
            self._files.load_bytes(f"{stored}_blocks", blocks),
            self._files.load_bytes(f"{stored}_scales", scales),
            f"{self._label}: tensor '{stored}_scales'",
        )

    def _packed_shapes(self, name: str) -> tuple[Shape, Shape]:
        experts, outputs, inputs = self._shapes[name]
        if inputs % MXFP4_BLOCK:
            raise InputError(
                f"{self._label}: tensor '{stored_gpt_oss_name(name)}_blocks': expected inputs in "
                f"blocks of {MXFP4_BLOCK}, found {inputs} inputs"
            )
        scales = (experts, outputs, inputs // MXFP4_BLOCK)
        return (*scales, MXFP4_BLOCK // 2), scales
