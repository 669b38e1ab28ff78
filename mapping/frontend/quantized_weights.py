"""The weights of a folder whose matrices are packed: read as integers, or dequantized."""

import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hw.spec.errors import InputError
from mapping.frontend.awq import (
    check_gemm,
    check_gemv,
    gemm_zeros,
    gemv_zeros,
    read_gemm,
    read_gemv,
)
from mapping.frontend.config import ModelConfig
from mapping.frontend.files import shown
from mapping.frontend.gptq import SYMMETRIC_ZERO, check_gptq, read_gptq, read_groups, read_zeros
from mapping.frontend.mxfp4 import check_mxfp4, read_mxfp4
from mapping.frontend.qserve import check_qserve, read_qserve
from mapping.frontend.quantization import Scheme
from mapping.frontend.safetensors_file import TensorFolder
from mapping.frontend.stored import Codes, StoredMatrix, consecutive_groups
from mapping.frontend.weights import (
    HEAD,
    FolderWeights,
    Weight,
    is_ignored,
    stored_name,
    tensor_shapes,
)

_ENDS = {
    "awq-gemm": ("qweight", "qzeros", "scales"),
    "awq-gemv": ("qweight", "qzeros", "scales"),
    "gptq": ("qweight", "qzeros", "scales", "g_idx"),
    "gptq-v2": ("qweight", "qzeros", "scales", "g_idx"),
    "qserve": ("qweight", "s1_scales", "s2_scales", "s2_zeros"),
    "mxfp4": ("weight_blocks", "weight_scales"),
}
"""Ends of the names of the tensors of a packed matrix; the first says that it is one."""

_CHECKS = {"awq-gemm": check_gemm, "awq-gemv": check_gemv, "gptq": check_gptq,
           "gptq-v2": check_gptq, "qserve": check_qserve}  # fmt: skip


class QuantizedFolderWeights(FolderWeights):
    """Weights read from safetensors files whose matrices are packed, one at a time.

    Parameters
    ----------
    folder : Path
        The model's folder.
    config : ModelConfig
        Says which weights there must be.
    scheme : Scheme
        Says how they are packed.

    Members
    -------
    packed : tuple of str
        Names of the packed matrices.

    Raises
    ------
    InputError
        If a weight is missing, has another shape or type, is stored twice, is not what the configuration says, or
        if the files hold weights that the model does not use.
    """

    def __init__(self, folder: Path, config: ModelConfig, scheme: Scheme) -> None:
        # Not the parent's: what must be there is another thing here.
        self._files = TensorFolder(folder)
        self._shapes = tensor_shapes(config)
        self._stored_name = stored_name
        self.scheme = scheme
        known = {stored_name(HEAD)}
        packed = []
        for name, shape in self._shapes.items():
            base, ends = _base(name), _ENDS[scheme.layout]
            if f"{base}.{ends[0]}" not in self._files.entries or len(shape) != 2:
                self._files.check(stored_name(name), shape)
                known.add(stored_name(name))
                continue
            self._check_packed(name)
            packed.append(name)
            known |= {f"{base}.{end}" for end in (*ends, "bias")}
        self.packed = tuple(packed)
        if not packed:
            raise InputError(
                f"{scheme.label}: expected matrices packed as {scheme.layout}, found none in the weights"
            )
        self._check_biases()
        for name, entry in self._files.entries.items():
            if name not in known and not is_ignored(name):
                raise InputError(
                    f"{entry.label}: expected only the weights of {config.architecture} packed as "
                    f"{scheme.layout}, found one that it does not use"
                )

    def _check_packed(self, name: str) -> None:
        base, shape, scheme = _base(name), self._shapes[name], self.scheme
        if stored_name(name) in self._files.entries:
            raise InputError(
                f"{self._files.entries[stored_name(name)].label}: expected packed or plain weights, "
                "found both"
            )
        for part in scheme.kept:
            if part in f"{base}." or part in base:
                raise InputError(
                    f"{scheme.label}: modules_to_not_convert: expected {shown(part)} as plain weights, "
                    f"found {shown(base)} packed"
                )
        if scheme.layout == "mxfp4":
            check_mxfp4(self._files, base, shape)
        else:
            _CHECKS[scheme.layout](self._files, base, shape, scheme.group)

    def _check_biases(self) -> None:
        """Some exporters store a bias for every matrix; of a Llama it must be zero."""
        for name in self.packed:
            entry = self._files.entries.get(f"{_base(name)}.bias")
            if entry is not None and self._files.load(entry.name, (self._shapes[name][0],)).any():
                raise InputError(f"{entry.label}: expected a bias of zeros, found others")

    def load(self, name: str) -> Weight:
        """Return a weight as float32, dequantized; raises `InputError` if it is damaged."""
        return self.stored(name).dequantize() if name in self.packed else super().load(name)

    def stored(self, name: str) -> StoredMatrix:
        """Return the integers and scales of a packed matrix.

        Raises
        ------
        InputError
            If it is damaged.
        """
        base, shape, scheme = _base(name), self._shapes[name], self.scheme
        match scheme.layout:
            case "awq-gemm":
                return read_gemm(self._files, base, shape, scheme.group).stored()
            case "awq-gemv":
                return read_gemv(self._files, base, shape, scheme.group).stored()
            case "qserve":
                return read_qserve(self._files, base, shape, scheme.group).stored()
            case "mxfp4":
                return read_mxfp4(self._files, base, shape)
        return read_gptq(
            self._files,
            base,
            shape,
            scheme.group,
            offset=self._zero_offset[0],
            act_order=scheme.act_order,
        ).stored()

    def groups(self, name: str) -> npt.NDArray[np.int32]:
        """The group of each input of a packed matrix."""
        inputs = self._shapes[name][1]
        if self.scheme.layout.startswith("gptq"):
            return read_groups(
                self._files, _base(name), inputs, self.scheme.group, self.scheme.act_order
            )
        return consecutive_groups(inputs, self.scheme.group)

    def ordered(self, name: str) -> bool:
        """Whether the inputs of each group of a packed matrix are neighbours."""
        return bool((np.diff(self.groups(name)) >= 0).all())

    def integer_range(self) -> tuple[int, int]:
        """Least and largest integer that any packed matrix may hold: by its zero points, or by its format."""
        if self.scheme.layout == "qserve":
            return -128, 127
        if self.scheme.layout == "mxfp4":
            return -12, 12
        zeros = [self._zeros(name) for name in self.packed]
        return -max(int(z.max()) for z in zeros), 15 - min(int(z.min()) for z in zeros)

    def _zeros(self, name: str) -> Codes:
        base, shape, group = _base(name), self._shapes[name], self.scheme.group
        if self.scheme.layout == "awq-gemm":
            return gemm_zeros(self._files, base, shape, group)
        if self.scheme.layout == "awq-gemv":
            return gemv_zeros(self._files, base, shape, group)
        stored = read_zeros(self._files, base, shape, group)
        return stored + np.uint8(self._zero_offset[0]) & np.uint8(15)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of how the folder was read."""
        return self._zero_offset[1] if self.scheme.layout.startswith("gptq") else ()

    @functools.cached_property
    def _zero_offset(self) -> tuple[int, tuple[str, ...]]:
        """What GPTQ's stored zero points lack, by content where that tells, else by label; and notes.

        All zero points of a symmetric checkpoint are 8, so that version 1 stores 7 and version 2 stores 8.
        """
        labelled = int(self.scheme.layout == "gptq")
        kinds: dict[int, str] = {}
        wrapped = 0
        for name in self.packed:
            zeros = read_zeros(self._files, _base(name), self._shapes[name], self.scheme.group)
            wrapped += int((zeros == 15).sum())
            least, most = int(zeros.min()), int(zeros.max())
            kinds.setdefault(least if least == most else -1, name)
        found = set(kinds)
        if self.scheme.symmetric:
            self._check_symmetric(kinds)
        if self.scheme.symmetric is not False and len(found) == 1:
            found_offset = SYMMETRIC_ZERO - min(found)
            if found_offset in (0, 1) and found_offset != labelled:
                return found_offset, (
                    f"{self.scheme.label}: checkpoint_format says version {2 - labelled}, but all zero points are "
                    f"stored as {min(found)}, as version {2 - found_offset} has it: read so",
                )
        if labelled and wrapped:
            return labelled, (
                f"{self.scheme.label}: {wrapped} zero point(s) stored as 15, which version 1 writes for 0: "
                "read as 0",
            )
        return labelled, ()

    def _check_symmetric(self, kinds: dict[int, str]) -> None:
        expected = (SYMMETRIC_ZERO - 1, SYMMETRIC_ZERO)
        for kind, name in kinds.items():
            if kind not in expected:
                raise InputError(
                    f"{self._files.folder}: tensor '{_base(name)}.qzeros': expected all zero points stored as 7 or "
                    f"all as 8 because quantization_config says sym, found {'others' if kind < 0 else kind}"
                )
        if len(kinds) > 1:
            raise InputError(
                f"{self._files.folder}: tensor '{_base(kinds[7])}.qzeros': expected zero points of one version, "
                f"found 7 (version 1) here and 8 (version 2) in '{_base(kinds[8])}.qzeros'"
            )


def _base(name: str) -> str:
    return stored_name(name).removesuffix(".weight")
