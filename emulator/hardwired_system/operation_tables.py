"""Operations of a layer as rows of numbers, for the loop over events."""

from enum import IntEnum

import numpy as np
import numpy.typing as npt

from emulator.hardwired_system.layer import layer_operations
from emulator.hardwired_system.machine import SystemMachine, is_static
from emulator.hardwired_system.model import SystemModel
from emulator.hardwired_system.operation import Kind, Operation

Ints = npt.NDArray[np.int64]

FIXED = len(Kind)
"""The kind of a row that takes its time and meets nobody."""


class Column(IntEnum):
    """What a row holds; see `Operation`."""

    KIND = 0
    CATEGORY = 1
    COLUMN = 2
    ROW = 3
    EXTRA = 4
    OCCUPIED = 5
    TOTAL = 6
    STEP = 7
    STAGE = 8


_FIELDS = tuple(column.name.lower() for column in Column)
_SUMMED = slice(Column.COLUMN, Column.STEP)


def encode(operations: tuple[Operation, ...], machine: SystemMachine) -> Ints:
    """Return operations as rows of numbers; collectives in a row that nobody waits for become one.

    With static shares a link is never busy with another token, so a chain of collectives is a fixed time.
    """
    rows: list[list[int]] = []
    for operation in operations:
        row = [int(getattr(operation, name)) for name in _FIELDS]
        if is_static(machine) and operation.kind is Kind.LINK:
            row[Column.KIND] = FIXED
            transfer = max(operation.column + operation.extra, operation.row)
            row[Column.TOTAL] = transfer + machine.latency_ticks
            last = rows[-1] if rows else None
            if last and (last[Column.KIND], last[Column.STAGE]) == (FIXED, row[Column.STAGE]):
                pairs = zip(last[_SUMMED], row[_SUMMED], strict=True)
                last[_SUMMED] = [a + b for a, b in pairs]
                continue
        rows.append(row)
    return np.array(rows, np.int64)


def turn_tables(model: SystemModel, machine: SystemMachine) -> Ints:
    """Return the layer's operations for 1, 2, ... experts on the busiest chip."""
    most = 1 if machine.even_routing else model.experts_per_token
    return np.stack([
        encode(layer_operations(model, machine, turns + 1), machine) for turns in range(most)
    ])


def collision_odds(model: SystemModel, machine: SystemMachine) -> npt.NDArray[np.float64]:
    """Return the cumulative odds that the busiest chip has 1, 2, ... of a token's experts.

    Experts are drawn evenly; drawn with a fixed seed, because a closed form is longer than it is worth.
    """
    if machine.even_routing:
        return np.ones(1)
    rng = np.random.default_rng(0)
    draws = rng.random((20_000, model.experts)).argpartition(model.experts_per_token, axis=1)
    chips = draws[:, : model.experts_per_token] * machine.chips // model.experts
    most = np.array([np.bincount(row).max() for row in chips])
    counts = np.bincount(most, minlength=model.experts_per_token + 1)[1:]
    return np.cumsum(counts) / counts.sum()
