"""Weight matrices cut into tiles that fit the rings of the matrix engine."""

from dataclasses import dataclass

from hw.spec.errors import InputError
from hw.spec.machine import MachineSpec
from mapping.lowering.regions import round_up
from mapping.recipe import WeightFormat

CREDITS = (4, 2)
"""Tiles that the rings hold at once: as many of these as a block of the longest matrix allows."""


@dataclass(frozen=True)
class MatrixPlan:
    """A weight matrix cut into tiles that fit the rings.

    Attributes
    ----------
    name : str
        Tensor name without the layer.
    rows, columns : int
        Outputs and inputs as the machine sees them (head padding included), not yet rounded to blocks and groups.
    format : WeightFormat
    blocks, steps, group_steps : int
        Blocks of `matrix_rows` outputs; steps along K; steps of a scale group.
    tile_blocks : int
        Blocks of a full tile.
    block_words, block_scale_words : int
        Stream and scale words of a block.
    """

    name: str
    rows: int
    columns: int
    format: WeightFormat
    blocks: int
    steps: int
    group_steps: int
    tile_blocks: int
    block_words: int
    block_scale_words: int

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


def plan_matrix(
    spec: MachineSpec, name: str, rows: int, columns: int, format: WeightFormat, credits: int
) -> MatrixPlan:
    """Cut a matrix into tiles.

    Raises
    ------
    InputError
        If the rings do not hold `credits` blocks of outputs.
    """
    step = format.step
    if step not in spec.step_formats:
        raise InputError(
            f"target {spec.name}: weight_formats, sparse: {name} needs {step.weight.name}"
            f"{f', {step.kept} of 16' if step.kept else ''}, which the target is not built with"
        )
    group = format.group or round_up(columns, step.alignment)
    if group % step.alignment:
        raise InputError(
            f"{name}: group: expected a multiple of {step.alignment}, what a step covers, found {group}"
        )
    steps = round_up(columns, group) // step.span
    group_steps = group // step.span
    block_words, scale_words = step.block_words(steps), steps // group_steps
    if group_steps * step.cycles < spec.rows_per_scaler:
        raise InputError(
            f"target {spec.name}: rows_per_scaler: a scale group of {name} takes {group_steps * step.cycles} cycles, "
            f"the target has scalers for {spec.rows_per_scaler} rows each, one a cycle"
        )
    room = min(
        spec.stream_words // credits // block_words, spec.scale_words // credits // scale_words
    )
    blocks = -(-rows // spec.matrix_rows)
    if room == 0:
        raise InputError(
            f"target {spec.name}: stream_words, scale_words: {name} needs {credits * block_words} and "
            f"{credits * scale_words}, the target has {spec.stream_words} and {spec.scale_words}"
        )
    if group_steps >= 1 << 12:
        raise InputError(
            f"{name}: {columns} inputs in one scale group: at most {step.span * 4095} are possible"
        )
    return MatrixPlan(
        name,
        rows,
        columns,
        format,
        blocks,
        steps,
        group_steps,
        min(room, blocks),
        block_words,
        scale_words,
    )
