"""Weight matrices cut into parts of equal format, and these into tiles that fit the rings of the matrix engine."""

import math
from dataclasses import dataclass

from hw.spec.errors import InputError
from hw.spec.machine import MachineSpec
from mapping.formats import BlockFormats, MatrixFormat, WeightFormat
from mapping.lowering.regions import round_up

CREDITS = (8, 4, 2)
"""Parts into which the rings are divided, as many of these as is possible; whoever holds a part holds a credit.

A tile takes one part. Blocks longer than a part are tiles of their own, of several parts, half of the ring at most:
while one tile is multiplied, the next one is loaded.
"""
MOST_WIRED_BITS = 5
"""Of hardwired weights: each magnitude is a region of its own."""


@dataclass(frozen=True)
class Piece:
    """A run of inputs of equal format: one instruction of the matrix engine.

    Attributes
    ----------
    first, columns : int
        Inputs from `first` on, not yet rounded to groups.
    format : WeightFormat
    steps, group_steps : int
        Steps along K; steps of a scale group.
    """

    first: int
    columns: int
    format: WeightFormat
    steps: int
    group_steps: int

    @property
    def block_words(self) -> int:
        """Stream words of a block."""
        return self.format.step.block_words(self.steps)

    @property
    def block_scale_words(self) -> int:
        """Scale words of a block."""
        return self.steps // self.group_steps

    @property
    def group(self) -> int:
        """Inputs of a scale group."""
        return self.group_steps * self.format.step.span


@dataclass(frozen=True)
class MatrixPart:
    """A run of blocks of outputs, cut into tiles that fit the rings.

    Attributes
    ----------
    offset : int
        Words from the first word of the matrix.
    first_block, blocks : int
        Blocks of `matrix_rows` outputs.
    rows : int
        Outputs, not yet rounded to blocks.
    tile_blocks : int
        Blocks of a full tile.
    tile_credits : int
        Parts of the rings that a tile takes.
    pieces : tuple of Piece
        Along the inputs. The rings hold, block by block, one piece behind the other.
    """

    offset: int
    first_block: int
    blocks: int
    rows: int
    tile_blocks: int
    tile_credits: int
    pieces: tuple[Piece, ...]

    @property
    def block_words(self) -> int:
        """Stream words of a block."""
        return sum(piece.block_words for piece in self.pieces)

    @property
    def block_scale_words(self) -> int:
        """Scale words of a block."""
        return sum(piece.block_scale_words for piece in self.pieces)

    def __str__(self) -> str:
        return f"{self.tiles} of {self.tile_blocks} blocks"

    @property
    def tiles(self) -> int:
        """Tiles, the last of which may be smaller."""
        return -(-self.blocks // self.tile_blocks)

    @property
    def words(self) -> int:
        """Memory words: full tiles, and a last one whose scales take as much room as those of a full one."""
        last = self.blocks - (self.tiles - 1) * self.tile_blocks
        return (
            (self.tiles - 1) * self.tile_words
            + self.tile_blocks * self.block_scale_words
            + last * self.block_words
        )

    @property
    def tile_words(self) -> int:
        """Memory words of a full tile, scales included."""
        return self.tile_blocks * (self.block_words + self.block_scale_words)


@dataclass(frozen=True)
class MatrixPlan:
    """A weight matrix as the machine sees it.

    Attributes
    ----------
    name : str
        Tensor name without the layer.
    rows, columns : int
        Outputs and inputs (head padding included), not yet rounded to blocks and groups.
    parts : tuple of MatrixPart
        Along the outputs; one, unless the recipe says otherwise.
    wired : bool
        It is hardwired: one tile, and no word of memory.
    """

    name: str
    rows: int
    columns: int
    parts: tuple[MatrixPart, ...]
    wired: bool = False

    def __str__(self) -> str:
        if self.wired:
            return f"{self.blocks} hardwired blocks"
        return " + ".join(f"{part.tiles} of {part.tile_blocks} blocks" for part in self.parts)

    @property
    def blocks(self) -> int:
        """Blocks of `matrix_rows` outputs."""
        return sum(part.blocks for part in self.parts)

    @property
    def words(self) -> int:
        """Memory words."""
        return 0 if self.wired else sum(part.words for part in self.parts)

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """Those of all parts."""
        return tuple(piece for part in self.parts for piece in part.pieces)

    @property
    def whole_inputs(self) -> bool:
        """Every block is one instruction: any number of vectors can meet it."""
        return all(len(part.pieces) == 1 for part in self.parts)

    @property
    def weight_bits(self) -> int:
        """Bits of the weights that are stored, without metadata and scales."""
        return sum(
            part.rows * piece.columns * piece.format.bits * (piece.format.step.kept or 16) // 16
            for part in self.parts
            for piece in part.pieces
        )


def plan_matrix(
    spec: MachineSpec, name: str, rows: int, columns: int, format: MatrixFormat, credits: int
) -> MatrixPlan:
    """Cut a matrix into parts and tiles.

    Raises
    ------
    InputError
        If the target lacks a format, or a block of outputs is longer than half of the rings.
    """
    blocks = -(-rows // spec.matrix_rows)
    if spec.wired_bits:
        return _plan_wired(spec, name, rows, columns, format)
    if isinstance(format, WeightFormat):
        runs = [(0, blocks, (_piece(spec, name, 0, columns, format),))]
    elif format.along == "inputs":
        runs = [(0, blocks, _cut_inputs(spec, name, columns, format))]
    else:
        shares = [share for share, _ in format.parts]
        ends = _cut(blocks, shares)
        runs = [
            (begin, end, (_piece(spec, name, 0, columns, part),))
            for begin, end, (_, part) in zip([0, *ends], ends, format.parts, strict=False)
            if end > begin
        ]
    parts: list[MatrixPart] = []
    offset = 0
    for begin, end, pieces in runs:
        outputs = min(rows, end * spec.matrix_rows) - begin * spec.matrix_rows
        room, tile_credits = _room(spec, name, pieces, credits)
        tile = _even(spec, end - begin, room)
        parts.append(MatrixPart(offset, begin, end - begin, outputs, tile, tile_credits, pieces))
        offset += parts[-1].words
    return MatrixPlan(name, rows, columns, tuple(parts))


def _even(spec: MachineSpec, blocks: int, room: int) -> int:
    """Blocks of a tile, at most `room`: as few tiles as possible, of even size, since a small one takes a place too.

    The vector unit reads whole granules: where one is longer than a block, tiles hold whole ones, as far as they can.
    """
    granule = max(1, spec.granule // spec.matrix_rows)
    tile = round_up(-(-blocks // -(-blocks // room)), granule)
    return min(blocks, tile if tile <= room else room // granule * granule or room)


def _plan_wired(
    spec: MachineSpec, name: str, rows: int, columns: int, format: MatrixFormat
) -> MatrixPlan:
    if (
        not isinstance(format, WeightFormat)
        or format.group is not None
        or format.kept
        or format.bits > MOST_WIRED_BITS
    ):
        raise InputError(
            f"target {spec.name}: wired_bits: {name} needs {format}; the target has wires, for dense weights of at most "
            f"{MOST_WIRED_BITS} bits with one scale a channel, as recipe w4a8-channel has them"
        )
    span = format.step.span
    steps = round_up(columns, max(span, spec.activation_row_bytes)) // span
    blocks = -(-rows // spec.matrix_rows)
    piece = Piece(0, columns, format, steps, steps)
    return MatrixPlan(
        name, rows, columns, (MatrixPart(0, 0, blocks, rows, blocks, 0, (piece,)),), True
    )


def ring_parts(credits: int, needed: float) -> int:
    """Whole parts of the rings that hold `needed` parts, or 0 if these are more than half of all."""
    whole = math.ceil(needed)
    return whole if 2 * whole <= credits else 0


def _cut(total: int, shares: list[float]) -> list[int]:
    """Ends of the runs of `total` units that are nearest to the shares."""
    return [round(total * sum(shares[: i + 1])) for i in range(len(shares) - 1)] + [total]


def _cut_inputs(
    spec: MachineSpec, name: str, columns: int, format: BlockFormats
) -> tuple[Piece, ...]:
    """Pieces along K; each begins where every format can begin."""
    steps = [part.step for _, part in format.parts]
    groups = [part.group for _, part in format.parts if part.group]
    unit = math.lcm(*(step.alignment for step in steps), *groups)
    ends = _cut(-(-columns // unit), [share for share, _ in format.parts])
    bounds = [min(columns, end * unit) for end in ends]
    return tuple(
        _piece(spec, name, begin, end - begin, part)
        for begin, end, (_, part) in zip([0, *bounds], bounds, format.parts, strict=False)
        if end > begin
    )


def _piece(spec: MachineSpec, name: str, first: int, columns: int, format: WeightFormat) -> Piece:
    step = format.step
    if step not in spec.step_formats:
        raise InputError(
            f"target {spec.name}: weight_formats, sparse: {name} needs {format}, "
            f"the target has {', '.join(spec.weight_formats)}{'' if spec.sparse else ', all dense'}"
        )
    group = format.group or round_up(columns, step.alignment)
    if group % step.alignment:
        raise InputError(
            f"{name}: group: expected a multiple of {step.alignment}, what a step covers, found {group}"
        )
    group_steps = group // step.span
    if group_steps * step.cycles < spec.rows_per_scaler:
        raise InputError(
            f"target {spec.name}: rows_per_scaler: a scale group of {name} takes {group_steps * step.cycles} cycles, "
            f"the target has scalers for {spec.rows_per_scaler} rows each, one a cycle"
        )
    if group_steps >= 1 << 12:
        raise InputError(
            f"target {spec.name}: {name} needs {columns} inputs in one scale group, the target has at most "
            f"{step.span * 4095}: choose a recipe of smaller groups"
        )
    return Piece(first, columns, format, round_up(columns, group) // step.span, group_steps)


def _room(spec: MachineSpec, name: str, pieces: tuple[Piece, ...], credits: int) -> tuple[int, int]:
    """Blocks of a tile, and parts of the rings that it takes."""
    words = sum(piece.block_words for piece in pieces)
    scale_words = sum(piece.block_scale_words for piece in pieces)
    # The vector unit reads whole granules, and must not meet the next tile's results.
    least = max(1, spec.granule // spec.matrix_rows)
    part_words, part_scales = spec.stream_words // credits, spec.scale_words // credits
    room = min(part_words // words, part_scales // scale_words) // least * least
    if room:
        return room, 1
    share = max(words / spec.stream_words, scale_words / spec.scale_words)
    tile_credits = ring_parts(credits, least * credits * share)
    if tile_credits == 0:
        raise InputError(
            f"target {spec.name}: stream_words, scale_words: {name} needs {2 * least * words} and "
            f"{2 * least * scale_words}, the target has {spec.stream_words} and {spec.scale_words}"
        )
    return least, tile_credits
