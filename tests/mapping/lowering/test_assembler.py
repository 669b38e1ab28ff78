"""The assembler: operands become fields, loops and branches get their targets, and limits are told."""

import numpy as np
import pytest

from emulator import sequencer
from emulator.decode import decode_unit
from hw.spec.errors import InputError
from hw.spec.instructions import LOOP_DEPTH, Condition, Opcode, Register, Unit, decode
from mapping.lowering.assembler import Address, Assembler, Count, Place, fixed, tiled, units


def retired(
    a: Assembler, prompt_length: int = 1, steps: int = 1, end: int = 1
) -> list[tuple[int, tuple[int, ...], int]]:
    """Program counter, loop indices and first count of every unit instruction, in order of execution."""
    code = decode_unit(a.unit, a.words(4096))
    entries = np.zeros((1000, sequencer.ENTRY_COLUMNS), np.int64)
    count, status = sequencer.expand(
        code.table, sequencer.new_state(), prompt_length, steps, end, entries
    )
    assert status == sequencer.HALTED
    index = sequencer.INDEX
    return [
        (
            int(e[sequencer.PC]),
            tuple(int(i) for i in e[index : index + LOOP_DEPTH]),
            int(e[sequencer.COUNTS]),
        )
        for e in entries[:count]
    ]


def test_units_are_a_mask() -> None:
    assert units(Unit.LD) == 1
    assert units(Unit.ST, Unit.SYS) == 2 + 16
    assert units() == 0


def test_operands_become_fields() -> None:
    count = Count(cap=7, offset=3, register=Register.POSITION, shift=2, scale=5, level=1, step=9)
    assert count.fields("x") == {
        "x_cap": 7, "x_register": 1, "x_offset": 3, "x_shift": 2, "x_scale": 5, "x_level": 1, "x_step": 9,
    }  # fmt: skip
    address = Address(base=100, strides={0: 5, 3: 6}, register=Register.TOKEN, shift=1, factor=8)
    assert address.fields() == {
        "address_base": 100, "address_register": 4, "address_shift": 1, "address_factor": 8,
        "address_stride0": 5, "address_stride3": 6,
    }  # fmt: skip
    place = Place(base=10, strides={2: 4, 0: 1})
    assert place.fields("d") == {
        "d_base": 10,
        "d_level0": 2,
        "d_stride0": 4,
        "d_level1": 0,
        "d_stride1": 1,
    }


def test_loops_run_their_rounds_and_the_last_tile_is_what_is_left() -> None:
    a = Assembler(Unit.LD)
    with a.loop(fixed(2)) as outer:
        with a.loop(fixed(3)) as inner:
            a.execute(destination=0, **tiled(100, 40, inner).fields("length"))
        a.sync()
    a.emit(Opcode.HALT)
    assert (outer, inner) == (0, 1)
    body = [(2, (o, i, 0, 0), n) for o in range(2) for i, n in enumerate((40, 40, 20))]
    assert retired(a) == [*body[:3], (4, (0, 0, 0, 0), 0), *body[3:], (4, (1, 0, 0, 0), 0)]


def test_a_loop_of_no_rounds_is_skipped() -> None:
    a = Assembler(Unit.ST)
    with a.loop(fixed(0)):
        a.sync()
    a.sync()
    a.emit(Opcode.HALT)
    assert [pc for pc, *_ in retired(a)] == [3]


def test_a_body_is_skipped_when_its_condition_holds() -> None:
    a = Assembler(Unit.MPE)
    with a.unless(Condition.PREFILL):
        a.sync()
    a.sync()
    a.emit(Opcode.HALT)
    assert [pc for pc, *_ in retired(a, prompt_length=5)] == [2]
    assert [pc for pc, *_ in retired(a, prompt_length=0)] == [1, 2]


@pytest.mark.parametrize("unit", [Unit.LD, Unit.SYS])
def test_the_token_loop_runs_until_the_end_is_told(unit: Unit) -> None:
    a = Assembler(unit)
    with a.token_loop():
        if unit != Unit.SYS:
            a.leave_at_end()
        a.sync(signal=units(Unit.SFU))
        if unit == Unit.SYS:
            a.leave_at_end()
    done = retired(a, prompt_length=2, steps=3, end=3)
    words = [decode(unit, word) for word in a.words(64)]
    body = next(pc for pc, word in enumerate(words) if word["signal"])
    rounds = [indices[0] for pc, indices, _ in done if pc == body]
    # SYS decides after its token, the others wait for it before their work.
    assert rounds == ([0, 1, 2, 3] if unit == Unit.SYS else [0, 1, 2])
    if unit != Unit.SYS:
        assert sum(words[pc]["wait"] == units(Unit.SYS) for pc, *_ in done) == 4
    assert words[-1]["opcode"] == Opcode.HALT


def test_loops_deeper_than_the_sequencer_can() -> None:
    a = Assembler(Unit.LD)

    def nest(depth: int) -> None:
        if depth:
            with a.loop(fixed(1)):
                nest(depth - 1)

    nest(LOOP_DEPTH)
    with pytest.raises(ValueError, match="deeper than 4"):
        nest(LOOP_DEPTH + 1)


def test_limits_are_told_as_input_errors() -> None:
    a = Assembler(Unit.LD)
    for _ in range(5):
        a.sync()
    assert len(a.words(5)) == 5
    with pytest.raises(InputError, match="LD needs 5, the target holds 4"):
        a.words(4)
    a.execute(**fixed(1 << 20).fields("length"))
    with pytest.raises(InputError, match="length_cap = 1048576 needs more than 20 bits"):
        a.words(100)
