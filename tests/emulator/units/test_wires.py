"""Products with hardwired matrices: plain integers say what they are, in NumPy and compiled."""

import dataclasses
import random

import numpy as np
import pytest

from emulator.accesses import accesses
from emulator.errors import IllegalInstruction
from emulator.kernels import layout
from emulator.kernels.wires import wired
from emulator.state import MachineState
from emulator.units import matrix
from hw.spec.instructions import Unit, operation_fields
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import load_machine
from hw.spec.weight_format import WIRES
from hw.spec.wires import Wires
from sim_tests.wired_example import with_wires

SPEC, WIRED = with_wires(
    dataclasses.replace(load_machine("tiny"), channels=2, drain_lanes=4, activation_rows=64), bits=1
)


def product(number: int, **values: int) -> dict[str, int]:
    fields = {name: 0 for name, _ in operation_fields(Unit.MPE)}
    blocks = SPEC.wired_matrices[number - 1].outputs // SPEC.matrix_rows
    fields |= {"format": WIRES, "first": 1, "last": 1, "vectors": 1, "steps": number}
    return fields | {"blocks": blocks} | values


def random_state(seed: int, spec: MachineSpec = SPEC, wires: Wires | None = WIRED) -> MachineState:
    rng = np.random.default_rng(seed)
    state = MachineState(spec)
    state.wires = wires
    state.activation[:] = rng.integers(-128, 128, len(state.activation))
    state.matrix_scales[:] = rng.normal(size=len(state.matrix_scales)).astype(np.float32)
    return state


@pytest.mark.parametrize("number", [1, 2, 3])
def test_sum_times_scale_times_scale(number: int) -> None:
    state, own = random_state(number), WIRED.matrices[number - 1]
    state.matrix_scales[5] = 0.375
    unit = SPEC.activation_row_bytes // 4
    matrix.execute(state, product(number, activation=3 * unit, result=9, scale=5))
    elements = state.activation[3 * 4 * unit :][: own.shape.inputs].astype(int)
    written = state.result.reshape(-1)[9 * SPEC.lanes :][: own.shape.outputs]
    for row in range(own.shape.outputs):
        if not np.isfinite(own.scales[row]):
            continue
        total = sum(int(w) * int(x) for w, x in zip(own.values[row], elements, strict=True))
        exact = np.float32(total * float(own.scales[row]))
        assert written[row] == np.float32(exact * np.float32(0.375)), row


def test_no_ring_is_read_and_the_accumulators_hold_the_last_block() -> None:
    state = random_state(0)
    state.stream[:] = 255
    matrix.execute(state, product(2))
    assert state.stream_read == state.scale_read == 0 and state.accumulated_columns == 1
    reads, writes = accesses(Unit.MPE, product(2, activation=4, scale=3, result=7), state)
    inputs, outputs = SPEC.wired_matrices[1].inputs, SPEC.wired_matrices[1].outputs
    assert reads == [("activation", 16, inputs), ("matrix_scales", 3, 1)]
    assert writes == [("result", 7, outputs // SPEC.lanes)]


WRONG = [
    {"steps": 0},
    {"steps": 4},
    {"blocks": 1},
    {"blocks": 3},
    {"kept": 1},
    {"bitmap": 1},
    {"scaled": 1},
    {"first": 0},
    {"last": 0},
    {"pop": 1},
    {"vectors": 2},
    {"vectors": 0},
    {"activation": 1},
    {"activation_pitch": 1},
]


@pytest.mark.parametrize("fields", WRONG, ids=str)
def test_what_the_hardware_refuses(fields: dict[str, int]) -> None:
    state = random_state(0)
    with pytest.raises(IllegalInstruction, match=f"MPE: {next(iter(fields))}: expected"):
        matrix.execute(state, product(2, **fields))
    assert not compiled(state, product(2, **fields))


def test_a_machine_without_wires_refuses_them() -> None:
    state = random_state(0, load_machine("tiny"), None)
    with pytest.raises(IllegalInstruction, match="one of 0 hardwired matrices"):
        matrix.execute(state, product(1))
    assert not compiled(state, product(1))


def compiled(state: MachineState, fields: dict[str, int]) -> bool:
    """The kernel, on the state's arrays."""
    arrays = {name: getattr(state, name)[None] for name in layout.Flat._fields}
    flat = {name: array.reshape(1, -1) for name, array in arrays.items()}
    flat["scale_ring"] = flat["scale_ring"].view(np.uint16)
    op = np.zeros(layout.OPERATION_COLUMNS, np.int64)
    for name, value in fields.items():
        op[layout.COLUMNS[Unit.MPE][name]] = value
    room = layout.scratch(state.spec, state.wires)
    return bool(wired(layout.Flat(**flat), 0, op, layout.parameters(state.spec), room))


def test_compiled_and_numpy_are_the_same_to_the_bit() -> None:
    choose = random.Random(3)
    ours, theirs = random_state(1), random_state(1)
    unit = SPEC.activation_row_bytes // 4
    for _ in range(60):
        fields = product(
            choose.randint(1, 3),
            activation=choose.randrange(0, 1 << 16, unit),
            result=choose.getrandbits(16),
            scale=choose.getrandbits(16),
        )
        matrix.execute(ours, fields)
        assert compiled(theirs, fields)
        for name in ("result", "accumulators", "registers"):
            assert getattr(ours, name).tobytes() == getattr(theirs, name).tobytes(), fields
