"""Number formats that a recipe can give a weight matrix, and how they are written in a recipe file."""

import math
from dataclasses import dataclass
from typing import Any

from hw.spec import weight_format as hw_format
from hw.spec.errors import InputError
from hw.spec.machine import MachineSpec
from hw.spec.weight_format import BLOCK_ELEMENTS, KEPT, StepFormat
from mapping.frontend.files import shown

INTEGER_BITS = (2, 3, 4, 5, 8)
KINDS = ("integer", "fp4", "mxfp4")
MXFP4_GROUP = 32
"""Elements that share a power of two in the OCP Microscaling specification."""
ORDER_SUFFIX = ".order"
"""Behind the name of a matrix: the permutation that sorts its inputs by group."""
_FIELDS = ("bits", "kind", "group", "kept", "index")


@dataclass(frozen=True)
class WeightFormat:
    """Number format of a weight matrix.

    Attributes
    ----------
    bits : int
        2, 3, 4, 5 or 8; two's complement, symmetric. FP4: 4.
    group : int or None
        Elements along the input that share a scale; None: the whole row (one scale a channel).
    kind : str
        `integer`; `fp4` (E2M1, scales as of integers); or `mxfp4` (E2M1, scales that are powers of two).
    kept : int
        Weights kept of every 16 along the input (8, 4, 2), or 0: all.
    bitmap : bool
        Which are kept is said by bitmaps, not by indices.
    stored : bool
        Integers and scales are those of the checkpoint (`mapping.checkpoint`).
    filled : bool
        Pruned weights are stored as zeros, for a machine without sparse multiplexers: no metadata.
    order : str
        The matrix of the layer in whose activation order the inputs are sorted before (`mapping.checkpoint`); empty: as they are.
    """

    bits: int
    group: int | None
    kind: str = "integer"
    kept: int = 0
    bitmap: bool = False
    stored: bool = False
    filled: bool = False
    order: str = ""

    @property
    def step(self) -> StepFormat:
        """The format as the matrix engine streams it."""
        name = f"INT{self.bits}" if self.kind == "integer" else "FP4"
        if self.filled:
            return StepFormat(hw_format.WeightFormat[name])
        return StepFormat(hw_format.WeightFormat[name], self.kept, self.bitmap)

    def bits_per_weight(self, inputs: int) -> float:
        """Bits of the stream over the weights it stands for: metadata and scales counted, rounding to blocks not."""
        step = self.step
        # A word of the stream is 16 bits for each row.
        words = (
            step.metadata_words - -step.weight_quarters // 4
            if step.kept
            else step.weight_quarters / 4
        )
        return 16 * words / step.span + 16 / (self.group or inputs)

    def __str__(self) -> str:
        name = f"INT{self.bits}" if self.kind == "integer" else self.kind.upper()
        sparse = f" {self.kept}:{BLOCK_ELEMENTS}" if self.kept else ""
        filled = ", zeros stored" if self.filled else ""
        return f"{name}{sparse}{filled} {f'g{self.group}' if self.group else 'a channel'}"


@dataclass(frozen=True)
class BlockFormats:
    """Formats of a matrix that is cut into runs of blocks.

    Attributes
    ----------
    along : str
        `outputs`: runs of output rows; `inputs`: runs of inputs, along K.
    parts : tuple of (share, WeightFormat)
        Share of the matrix and its format, in order; shares sum to one.
    """

    along: str
    parts: tuple[tuple[float, WeightFormat], ...]

    def bits_per_weight(self, inputs: int) -> float:
        """Mean over the parts."""
        return sum(share * format.bits_per_weight(inputs) for share, format in self.parts)

    def __str__(self) -> str:
        return " + ".join(f"{share:.0%} {format}" for share, format in self.parts)


MatrixFormat = WeightFormat | BlockFormats


def narrowest_format(
    least: int, most: int, group: int | None, machine: MachineSpec
) -> WeightFormat:
    """The narrowest format of a machine that holds integers of this range (INT8 always does); they are stored as they are."""
    bits = min(
        format.bits
        for format in map(hw_format.WeightFormat.__getitem__, machine.weight_formats)
        if format is not hw_format.WeightFormat.FP4
        and -format.largest <= least
        and most < format.largest
    )
    return WeightFormat(bits, group, stored=True)


def parse_matrix_format(content: Any, where: str) -> MatrixFormat:
    """Check what a recipe says of a matrix: the fields of one format, or `blocks` of several.

    Raises
    ------
    InputError
    """
    if not isinstance(content, dict) or "blocks" not in content:
        return parse_format(content, where)
    unknown = [name for name in content if name not in {"blocks", "along"}]
    if unknown:
        raise InputError(f"{where}: expected blocks and along, found {shown(unknown[0])}")
    along, blocks = content.get("along", "outputs"), content["blocks"]
    if along not in ("outputs", "inputs"):
        raise InputError(f"{where}: along: expected 'outputs' or 'inputs', found {shown(along)}")
    if not isinstance(blocks, list) or len(blocks) < 2:
        raise InputError(
            f"{where}: blocks: expected a list of two or more formats with their share, found {shown(blocks)}"
        )
    parts: list[tuple[float, WeightFormat]] = []
    for i, block in enumerate(blocks):
        place = f"{where}: blocks[{i}]"
        if not isinstance(block, dict):
            raise InputError(f"{place}: expected a mapping, found {shown(block)}")
        share = block.get("share")
        if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share < 1:
            raise InputError(
                f"{place}: share: expected a number between 0 and 1, found {shown(share)}"
            )
        rest = {key: value for key, value in block.items() if key != "share"}
        parts.append((float(share), parse_format(rest, place)))
    total = sum(share for share, _ in parts)
    if not math.isclose(total, 1, abs_tol=1e-6):
        raise InputError(f"{where}: blocks: expected shares that sum to 1, found {total:g}")
    return BlockFormats(along, tuple(parts))


def parse_format(content: Any, where: str) -> WeightFormat:
    """Check the fields of one format: `bits` or `kind`, `group`, and for sparse ones `kept` and `index`.

    Raises
    ------
    InputError
    """
    if (
        not isinstance(content, dict)
        or "group" not in content
        or not {"bits", "kind"} & set(content)
    ):
        raise InputError(f"{where}: expected bits (or kind) and group, found {shown(content)}")
    unknown = [name for name in content if name not in _FIELDS]
    if unknown:
        raise InputError(
            f"{where}: {shown(unknown[0])}: unknown field (known: {', '.join(_FIELDS)})"
        )
    kind = content.get("kind", "integer")
    if kind not in KINDS:
        raise InputError(f"{where}: kind: expected {', '.join(KINDS)}, found {shown(kind)}")
    bits = content.get("bits", None if kind == "integer" else 4)
    allowed = INTEGER_BITS if kind == "integer" else (4,)
    if type(bits) is not int or bits not in allowed:
        names = ", ".join(map(str, allowed[:-1])) + " or " if len(allowed) > 1 else ""
        raise InputError(f"{where}: bits: expected {names}{allowed[-1]}, found {shown(bits)}")
    kept = content.get("kept", 0)
    if type(kept) is not int or kept not in KEPT or ("kept" in content and not kept):
        raise InputError(
            f"{where}: kept: expected 8, 4 or 2 (of {BLOCK_ELEMENTS}), found {shown(kept)}"
        )
    dense = WeightFormat(bits, None, kind)
    bitmap = _bitmap(content, dense, kept, where)
    group = _group(content["group"], WeightFormat(bits, None, kind, kept, bitmap), where)
    return WeightFormat(bits, group, kind, kept, bitmap)


def _bitmap(content: dict[str, Any], dense: WeightFormat, kept: int, where: str) -> bool:
    """Whether kept weights are said by bitmaps; `auto` takes them where they are possible: there they are smaller."""
    if "index" not in content:
        index = "auto"
    elif not kept:
        raise InputError(
            f"{where}: index: expected with kept only, found {shown(content['index'])}"
        )
    else:
        index = content["index"]
    if index not in ("index", "bitmap", "auto"):
        raise InputError(
            f"{where}: index: expected 'index', 'bitmap' or 'auto', found {shown(index)}"
        )
    possible = kept == 8 and dense.step.weight.step_weights == 8
    if index == "bitmap" and not possible:
        raise InputError(
            f"{where}: index: bitmaps need kept: 8 and weights of at most 4 bits, found kept: {kept}, bits: {dense.bits}"
        )
    return possible and index != "index"


def _group(group: Any, format: WeightFormat, where: str) -> int | None:
    if format.kind == "mxfp4" and group != MXFP4_GROUP:
        raise InputError(f"{where}: group: expected {MXFP4_GROUP} for mxfp4, found {shown(group)}")
    if group == "channel":
        return None
    unit = max(8, format.step.alignment)
    if type(group) is not int or group < unit or group % unit or group > 4096:
        raise InputError(
            f"{where}: group: expected 'channel' or a multiple of {unit} up to 4096, found {shown(group)}"
        )
    return group
