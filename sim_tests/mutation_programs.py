"""Programs for what random ones hardly ever do: sums next to a tie of rounding, wide counts, long loops, and more."""

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt

from hw.spec.instructions import (
    BUFFER_BITS,
    COUNT_BITS,
    EXTENT_BITS,
    FACTOR_BITS,
    LOOP_DEPTH,
    Condition,
    Destination,
    Opcode,
    Reduce,
    Register,
    Source,
    Target,
    Unit,
)
from hw.spec.machine import MachineSpec
from hw.spec.program import Program
from mapping.lowering.assembler import Address, Assembler, Count, Place, fixed, units
from mapping.lowering.vector_program import Operand, VectorProgram, constant
from sim_tests.exactness import Request
from sim_tests.fuzz_case import FuzzCase

LENGTH = 16
"""Elements of a sum."""
_LARGEST = 16
"""Log2 of the largest element: fixed point has 17 bits before the point, and the sign."""
_LEAST = -30
_TOP = _LARGEST + 3
"""Log2 of sums: eight of the largest elements."""
_MANTISSA = 23
"""Bits of FP32 behind the first."""

_ROWS = (96, 300, 511, 700)
"""Of one instruction; more take longer than the watchdog waits."""
_COUNTED = 6
"""What counts are from registers: more than any register holds."""
_LONG = 2100
"""Rounds, of which the indices have twelve bits."""
_LONGEST = (1 << COUNT_BITS - 1) + 2
"""Rounds, of which the indices have all bits."""
_ROUND_CYCLES, _PAUSE_CYCLES = 15, 10
"""Of SKIP, BRANCH and END_LOOP, and of INCREMENT and END_LOOP."""


def sums() -> npt.NDArray[np.float32]:
    """[sums, LENGTH]: exact ties, to even and to odd, and ties but for one bit, each that there can be, of both signs."""
    rows = []
    for odd in (False, True):
        for rest in (None, *range(_LEAST, _TOP - _MANTISSA - 1)):
            row = [2.0**_LARGEST] * 2 ** (_TOP - _LARGEST)
            row += [2.0 ** (_TOP - _MANTISSA)] * odd + [2.0 ** (_TOP - _MANTISSA - 1)]
            row += [] if rest is None else [2.0**rest]
            row += [0.0] * (LENGTH - len(row))
            rows += [row, [-element for element in row]]
    return np.array(rows, np.float32)


def sums_case(spec: MachineSpec) -> FuzzCase:
    """Loads the numbers tile by tile, and adds up every row; then copies one number to many rows."""
    row_words = LENGTH * 4 // spec.word_bytes
    tile = min(spec.input_words // row_words, spec.scalars)
    numbers = sums()
    tiles = -(-len(numbers) // tile)
    memory = np.zeros((tiles * tile, LENGTH), np.float32)
    memory[: len(numbers)] = numbers
    programs = {unit: Assembler(unit) for unit in Unit}
    load, vector = programs[Unit.LD], programs[Unit.SFU]
    vector.sync(signal=units(Unit.LD))
    with load.loop(fixed(tiles)) as level:
        load.execute(
            units(Unit.SFU),
            units(Unit.SFU),
            destination=int(Destination.INPUT),
            **Address(0, {level: tile * row_words}).fields(),
            **fixed(tile * row_words).fields("length"),
        )
    with vector.loop(fixed(tiles)):
        row = Operand(Source.INPUT, Place(0), row_words * spec.word_rows)
        VectorProgram(vector).apply(
            fixed(LENGTH), row, rows=tile, reduce=Reduce.SUM, wait=units(Unit.LD), signal=units(Unit.LD)
        )  # fmt: skip
    for rows in _ROWS:
        VectorProgram(vector).apply(fixed(1), Operand(Source.INPUT, Place(0)), rows=rows, target=Target.VECTOR,
                                    d=Place(0), d_pitch=1)  # fmt: skip
    for program in programs.values():
        program.emit(Opcode.HALT)
    return _case(spec, programs, memory.view(np.uint8).reshape(-1, spec.word_bytes))


def argmax_case(spec: MachineSpec) -> FuzzCase:
    """ARGMAX of a row that grows, from the last place on that an instruction can name; SYS takes the index."""
    programs = {unit: Assembler(unit) for unit in Unit}
    vector, system = programs[Unit.SFU], programs[Unit.SYS]
    rows = 4
    for row in range(rows):
        _number(spec, vector, row, 1.0 + row)
    VectorProgram(vector).apply(
        fixed(rows * spec.lanes), Operand(Source.VECTOR, Place(0)), reduce=Reduce.ARGMAX, restart=1,
        d=Place((1 << BUFFER_BITS) - 1), signal=units(Unit.SYS),
    )  # fmt: skip
    system.emit(Opcode.INCREMENT, **fixed(1).fields("count"))
    system.execute(wait=units(Unit.SFU))
    for program in programs.values():
        program.emit(Opcode.HALT)
    return _case(spec, programs, np.zeros((1, spec.word_bytes), np.uint8))


def last_cases(spec: MachineSpec) -> list[FuzzCase]:
    """Vector instructions that are the last of a run; what lies behind their results is read in the next one."""
    return [_last(spec, reduce) for reduce in Reduce if reduce != Reduce.ARGMAX]


def _last(spec: MachineSpec, reduce: Reduce) -> FuzzCase:
    programs = {unit: Assembler(unit) for unit in Unit}
    vector = programs[Unit.SFU]
    some = spec.vector_rows // 4
    for source in (Source.SCALAR, Source.VECTOR):
        VectorProgram(vector).apply(
            fixed(1), Operand(source, Place(0), 1), rows=some, target=Target.VECTOR, d=Place(2 * some), d_pitch=1
        )  # fmt: skip
    _number(spec, vector, 3 * some, 1.5)
    number = Operand(Source.VECTOR, Place(3 * some))
    if reduce == Reduce.NONE:
        VectorProgram(vector).apply(fixed(1), number, target=Target.VECTOR, d=Place(0))
    else:
        VectorProgram(vector).apply(fixed(1), number, reduce=reduce, entry=0)
    for program in programs.values():
        program.emit(Opcode.HALT)
    return _case(spec, programs, np.zeros((1, spec.word_bytes), np.uint8))


def _number(spec: MachineSpec, vector: Assembler, row: int, value: float) -> None:
    """A row of the vector buffer, all of it the same."""
    VectorProgram(vector).apply(
        fixed(spec.lanes), Operand(Source.SCALAR, Place(0)), constant(0.0), constant(value),
        target=Target.VECTOR, d=Place(row),
    )  # fmt: skip


def registers_case(spec: MachineSpec, token: bool = False) -> FuzzCase:
    """MPE with each of its counts from each register that a count may depend on, or, with `token`, from TOKEN.

    That is no legal program, but what it does is seen.
    """
    programs = {unit: Assembler(unit) for unit in Unit}
    load, matrix, system = programs[Unit.LD], programs[Unit.MPE], programs[Unit.SYS]
    stream = int(Destination.STREAM)
    load.execute(signal=units(Unit.MPE), destination=stream, **fixed(_COUNTED).fields("length"))
    system.execute(signal=units(Unit.MPE))
    request = Request((5, 1, 1, 1), 3)
    values = {Register.ZERO: 0, Register.SKIPPED: 1, Register.REST: 2, Register.POSITION: 3}
    values |= {Register.PROMPT_LENGTH: len(request.prompt), Register.STEPS: request.steps}
    matrix.emit(Opcode.INCREMENT, **fixed(values[Register.POSITION]).fields("count"))
    matrix.emit(Opcode.SKIP, **fixed(values[Register.SKIPPED]).fields("count"))
    matrix.sync(wait=units(Unit.LD, Unit.SYS))
    for name in ("blocks", "steps", "vectors"):
        for register, value in ({Register.TOKEN: request.prompt[0]} if token else values).items():
            counts = dict.fromkeys(("blocks", "steps", "vectors"), fixed(1))
            counts[name] = Count(2 * _COUNTED, _COUNTED - value, register)
            fields = {"format": int(spec.step_formats[0].weight), "first": 1, "last": 1}
            for operand, count in counts.items():
                fields |= count.fields(operand)
            matrix.execute(**fields, result_pitch=1)
    for program in programs.values():
        program.emit(Opcode.HALT)
    memory = np.arange(_COUNTED * spec.word_bytes, dtype=np.uint8).reshape(-1, spec.word_bytes)
    return dataclasses.replace(_case(spec, programs, memory), request=request)


def steps_case(spec: MachineSpec) -> FuzzCase:
    """SYS alone, token by token."""
    programs = {unit: Assembler(unit) for unit in Unit}
    system = programs.pop(Unit.SYS)
    for program in programs.values():
        program.emit(Opcode.HALT)
    with system.token_loop():
        system.execute()
        system.leave_at_end()
    nothing = np.zeros((1, spec.word_bytes), np.uint8)
    return _case(spec, {**programs, Unit.SYS: system}, nothing)


def control_cases(spec: MachineSpec) -> list[FuzzCase]:
    """Control flow of every sequencer alone: each bit of rounds, of an index and of SKIPPED counts."""
    return [
        *(_every_unit(spec, lambda a, depth=depth: _rounds(a, depth)) for depth in range(LOOP_DEPTH)),
        _every_unit(spec, _skipped),
        _every_unit(spec, _indices),
    ]  # fmt: skip


def longest_cases(spec: MachineSpec) -> list[FuzzCase]:
    """Loops of so many rounds at every depth that their index has all its bits; seconds each."""
    cases = []
    for depth in range(LOOP_DEPTH):
        for keeper in (Unit.SYS, Unit.LD):
            programs = {unit: Assembler(unit) for unit in Unit}
            for unit, program in programs.items():
                if unit == keeper:
                    _retire_for_long(program)
                elif keeper == Unit.SYS or unit == Unit.SYS:
                    _longest_loop(program, depth)
                program.emit(Opcode.HALT)
            cases.append(_case(spec, programs, np.zeros((1, spec.word_bytes), np.uint8)))
    return cases


def _longest_loop(a: Assembler, depth: int) -> None:
    """A loop inside of `depth` others; only its last rounds, in which all bits of the index change, have an instruction."""
    late = _LONGEST - 4
    a.emit(Opcode.INCREMENT, **fixed(1).fields("count"))
    with ExitStack() as stack:
        for _ in range(depth):
            stack.enter_context(a.loop(fixed(1)))
        a.emit(Opcode.LOOP, **fixed(_LONGEST).fields("count"))
        # SKIPPED is late - index, and REST, that is 1 - SKIPPED, is zero before.
        head = a.emit(Opcode.SKIP, **Count(late, late, level=depth, step=1).fields("count"))
        a.emit(Opcode.BRANCH, condition=int(Condition.REST), target=head + 3)
        a.emit(Opcode.END_LOOP, target=head)
        a.sync()
        if a.unit == Unit.SFU:
            _differences(VectorProgram(a), depth)
        a.emit(Opcode.END_LOOP, target=head)


def _differences(vector: VectorProgram, depth: int) -> None:
    """Counts that are one in the last round, as the difference of two wide products, and at their cap before."""
    index = _LONGEST - 1
    for scale in ((1 << FACTOR_BITS) - 2, 0xAAAB):
        # The largest multiple of the scale that is one above a multiple of the index.
        least = pow(scale, -1, index)
        total = least + ((1 << EXTENT_BITS) - 1 - least) // index * index
        count = Count(2, total, scale=scale, level=depth, step=total * scale // index)
        entry = Operand(Source.SCALAR, Place(0))
        vector.apply(count, entry, target=Target.VECTOR, d=Place(0))
        vector.apply(fixed(1), entry, rows=count, target=Target.VECTOR, d=Place(0))


def _retire_for_long(a: Assembler) -> None:
    """An instruction now and then, lest the watchdog take the others for dead."""
    pause = 100
    with a.loop(fixed(_LONGEST * _ROUND_CYCLES // (pause * _PAUSE_CYCLES))):
        with a.loop(fixed(pause)):
            a.emit(Opcode.INCREMENT, **fixed(1).fields("count"))
        a.sync()


def _every_unit(spec: MachineSpec, write: Callable[[Assembler], None]) -> FuzzCase:
    programs = {unit: Assembler(unit) for unit in Unit}
    for program in programs.values():
        write(program)
    return _case(spec, programs, np.zeros((1, spec.word_bytes), np.uint8))


def _rounds(a: Assembler, depth: int) -> None:
    """Loops of 2**b rounds for every b, inside of `depth` others, with another inside; left in their second round. HALT in there."""
    one = fixed(1).fields("count")
    position = Count((1 << COUNT_BITS) - 1, 1, Register.POSITION)
    for _ in range(depth):
        a.emit(Opcode.LOOP, **one)
    for bit in range(COUNT_BITS):
        # REST is zero behind the first INCREMENT.
        a.emit(Opcode.SKIP, **position.fields("count"))
        inner = depth + 1 < LOOP_DEPTH
        behind = a.here + (7 if inner else 5)
        head = a.emit(Opcode.LOOP, target=behind, **fixed(1 << bit).fields("count"))
        if inner:
            a.emit(Opcode.LOOP, target=head + 3, **one)
            a.emit(Opcode.END_LOOP, target=head + 2)
        a.sync()
        a.emit(Opcode.INCREMENT, **one)
        a.emit(Opcode.BRANCH, condition=int(Condition.REST), close=1, target=behind)
        a.emit(Opcode.END_LOOP, target=head + 1)
    a.emit(Opcode.LOOP, **one)
    a.emit(Opcode.HALT)


def _skipped(a: Assembler) -> None:
    """For every bit: POSITION is what is skipped, then one more; what is taken off SKIP's count is of any size."""
    for bit in range(COUNT_BITS):
        value = 1 << bit
        less = (0x5A5A5 ^ value) & (1 << COUNT_BITS - 1) - 1
        made = min(value + less, (1 << COUNT_BITS) - 1)
        a.emit(Opcode.INCREMENT, **fixed(made - less).fields("count"))
        for more in (0, 1):
            a.emit(Opcode.SKIP, less=less + more, **fixed(made).fields("count"))
            with a.unless(Condition.REST):
                a.sync()
        a.emit(Opcode.INCREMENT, backward=1, **fixed(made - less).fields("count"))
    a.emit(Opcode.HALT)


def _indices(a: Assembler) -> None:
    """Long loops at every depth, with instructions in them that must leave the index alone."""
    for depth in range(LOOP_DEPTH):
        with ExitStack() as stack:
            for _ in range(depth):
                stack.enter_context(a.loop(fixed(1)))
            with a.loop(fixed(_LONG)):
                a.emit(Opcode.SKIP, **fixed(1).fields("count"))
                a.emit(Opcode.INCREMENT, **fixed(1).fields("count"))
                a.sync()
    a.emit(Opcode.HALT)


def _case(
    spec: MachineSpec, programs: dict[Unit, Assembler], memory: npt.NDArray[np.uint8]
) -> FuzzCase:
    instructions = {unit: program.words(spec.instructions) for unit, program in programs.items()}
    return FuzzCase(0, Program(spec, instructions, memory), Request((1,), 1))
