"""The instruction set of the flight processor: one table for encoder, decoder, hardware and documentation.

Each unit has its own sequencer and instruction width. An instruction is a little-endian integer; the
fields of its opcode follow each other from bit 0 in the order of the table. `docs/isa.md` states the
meaning; `emulator` executes it.
"""

import enum
import functools
from dataclasses import dataclass

ENCODING_VERSION = 5
LOOP_DEPTH = 4
"""Loops that a sequencer can nest; level 0 is the outermost."""
SEMAPHORE_BITS = 8
COUNT_BITS = 20
EXTENT_BITS = 24
"""Extents that counts are cut from: all blocks of a matrix, say, when a count is the blocks of one tile."""
FACTOR_BITS = 16


class Unit(enum.IntEnum):
    """The five units, in the order of token masks and of register maps."""

    LD = 0
    ST = 1
    MPE = 2
    SFU = 3
    SYS = 4


class Opcode(enum.IntEnum):
    """Opcodes: 1 to 7 are every sequencer's, `EXECUTE` is the unit's own operation."""

    ILLEGAL = 0
    SYNC = 1
    """Nothing but tokens; retires like any unit instruction."""
    LOOP = 2
    """Open a loop of `count` rounds; none: jump to `target`."""
    END_LOOP = 3
    """Next round: jump to `target` (the first instruction of the body); or close the loop."""
    BRANCH = 4
    """If `condition`, jump to `target`, closing `close` loops."""
    INCREMENT = 5
    """Add a count to this sequencer's POSITION, or subtract it."""
    HALT = 6
    """Stop this sequencer."""
    SKIP = 7
    """SKIPPED = max(0, count - `less`), in this sequencer."""
    EXECUTE = 8


class Register(enum.IntEnum):
    """Run-time registers; POSITION, SKIPPED and REST are each sequencer's own, the others are shared."""

    ZERO = 0
    POSITION = 1
    PROMPT_LENGTH = 2
    STEPS = 3
    TOKEN = 4
    SKIPPED = 5
    """What SKIP set: tokens that an attention mask leaves out, say."""
    REST = 6
    """max(0, POSITION - SKIPPED)."""


class Condition(enum.IntEnum):
    """Conditions of BRANCH."""

    ALWAYS = 0
    PREFILL = 1
    """POSITION < PROMPT_LENGTH: the next token is known, so no logits are needed."""
    END = 2
    """The END flag, set by SYS with the last token."""
    REST = 3
    """REST is not zero."""


class Destination(enum.IntEnum):
    """Where LD writes."""

    STREAM = 0
    SCALE = 1
    INPUT = 2


class Pattern(enum.IntEnum):
    """How ST spreads bytes over words."""

    COLUMN = 0
    """Row of a K tile: 4 bytes a step, at byte 4*lane of each step of two words."""
    SPREAD = 1
    """Column of a V tile: byte r of `matrix_rows` at byte 4*r + lane of one step of two words."""
    SCALAR = 2
    """One FP32 at byte 4*lane of one word."""


class Source(enum.IntEnum):
    """Where an SFU operand comes from; A may not be NONE or CONSTANT."""

    NONE = 0
    INPUT = 1
    VECTOR = 2
    RESULT = 3
    SCALAR = 4
    """One entry of the scalar file a row, the same for all its elements."""
    CONSTANT = 5


class Reduce(enum.IntEnum):
    """Reductions over each row of an SFU instruction."""

    NONE = 0
    MAXIMUM = 1
    MAGNITUDE = 2
    """Largest absolute value."""
    SUM = 3
    """Fixed point: every element as an integer multiple of 2**-30, 48 bits, summed in 64."""
    ARGMAX = 4
    """Largest value and the lowest index that has it; kept in the unit for SYS."""


class Target(enum.IntEnum):
    """Where an SFU instruction writes its elements."""

    NONE = 0
    VECTOR = 1
    SCALAR = 2
    """First element of each row, to the scalar file."""
    ACTIVATION = 3
    """As INT8, to the matrix engine's activation buffer."""
    STORE_INTEGER = 4
    """As INT8, to the store buffer."""
    STORE_FLOAT = 5
    """First element of each row, as FP32, to the store buffer (row pitch of 4 bytes)."""
    MATRIX_SCALE = 6
    """First element of each row, to the matrix engine's scale file."""


@dataclass(frozen=True)
class Field:
    """One field of an instruction: `width` bits, unsigned; `doc` in the words of the manual."""

    name: str
    width: int
    doc: str


def count_fields(name: str, doc: str) -> list[Field]:
    """Fields of a count: min(cap, max(0, ((register + offset) >> shift) * scale - index[level] * step))."""
    return [
        Field(f"{name}_cap", COUNT_BITS, f"{doc}; at most"),
        Field(f"{name}_register", 3, "run-time register"),
        Field(f"{name}_offset", EXTENT_BITS, "added to the register"),
        Field(f"{name}_shift", 4, "right shift of the sum"),
        Field(f"{name}_scale", FACTOR_BITS, "factor"),
        Field(f"{name}_level", 2, "loop whose index is charged"),
        Field(f"{name}_step", EXTENT_BITS, "subtracted for each round of that loop"),
    ]


def memory_fields() -> list[Field]:
    """Fields of a memory address, in words: base + (register >> shift) * factor + sum of index * stride."""
    strides = [
        Field(f"address_stride{i}", 28, f"words a round of loop {i}") for i in range(LOOP_DEPTH)
    ]
    return [
        Field("address_base", 28, "memory address, in words"),
        Field("address_register", 3, "run-time register"),
        Field("address_shift", 4, "right shift of the register; ST's lane is what is shifted out"),
        Field("address_factor", 24, "words for each unit of the shifted register"),
        *strides,
    ]


def buffer_fields(name: str, doc: str, terms: int = 1) -> list[Field]:
    """Fields of a buffer address: base + sum over terms of index[level] * stride (16 bits, wrapping)."""
    result = [Field(f"{name}_base", 16, doc)]
    for i in range(terms):
        result += [
            Field(f"{name}_level{i}", 2, "loop"),
            Field(f"{name}_stride{i}", 16, "added a round of that loop"),
        ]
    return result


HEADER = [
    Field("opcode", 4, "see Opcode"),
    Field("wait", 5, "one token from each unit of the mask is consumed before issue"),
    Field("signal", 5, "one token is sent to each unit of the mask at the end"),
]
CONTROL: dict[Opcode, list[Field]] = {
    Opcode.SYNC: [],
    Opcode.LOOP: [
        *count_fields("count", "rounds"),
        Field("target", 12, "first instruction behind the loop"),
    ],
    Opcode.END_LOOP: [Field("target", 12, "first instruction of the body")],
    Opcode.BRANCH: [
        Field("target", 12, "instruction to go to"),
        Field("condition", 2, "see Condition"),
        Field("close", 3, "innermost loops to close when taken"),
    ],
    Opcode.INCREMENT: [
        *count_fields("count", "added to POSITION"),
        Field("backward", 1, "subtract instead of adding"),
    ],
    Opcode.HALT: [],
    Opcode.SKIP: [
        *count_fields("count", "that SKIPPED is made of"),
        Field("less", COUNT_BITS, "subtracted from the count"),
    ],
}


def _operand(name: str) -> list[Field]:
    return [
        Field(f"{name}_source", 3, "see Source"),
        *buffer_fields(name, "row of the buffer, or entry of the scalar file"),
        Field(f"{name}_pitch", 16, "rows (entries) from one row of the instruction to the next"),
    ]


EXECUTE: dict[Unit, list[Field]] = {
    Unit.LD: [
        Field("destination", 2, "see Destination"),
        Field("random", 1, "address depends on data: always charged as a row miss"),
        *memory_fields(),
        *count_fields("length", "words"),
        *buffer_fields("buffer", "word of the input buffer (rings keep their own pointer)"),
    ],
    Unit.ST: [
        Field("pattern", 2, "see Pattern"),
        *memory_fields(),
        Field("rows", 8, "rows; each is a transfer of its own"),
        Field("pitch", 24, "memory words from row to row"),
        Field("steps", 8, "steps a row (COLUMN), otherwise 1"),
        *buffer_fields("source", "store buffer address, in units of 4 bytes"),
        Field("source_pitch", 16, "units of 4 bytes from row to row"),
    ],
    Unit.MPE: [
        Field("format", 3, "see hw.spec.weight_format.WeightFormat; 7: a hardwired matrix"),
        Field("kept", 2, "weights kept of 16: 0: all (dense), 1: 8, 2: 4, 3: 2"),
        Field("bitmap", 1, "metadata of sparse steps are bitmaps, not indices"),
        Field("scaled", 1, "multiply each group's sum by its scale"),
        Field("first", 1, "clear the accumulators"),
        Field("last", 1, "write results"),
        Field(
            "pop",
            1,
            "advance the rings behind what was read; 0: the next instruction reads it again",
        ),
        Field("group_steps", 12, "steps of a scale group"),
        *count_fields("blocks", "blocks of matrix_rows outputs"),
        *count_fields("steps", "steps along K; the number of a hardwired matrix, from 1"),
        *count_fields("vectors", "activation vectors"),
        *buffer_fields("activation", "activation buffer, in units of 4 elements", 2),
        Field("activation_pitch", 16, "units of 4 elements from vector to vector"),
        *buffer_fields("result", "row of the result buffer", 2),
        Field("result_pitch", 16, "rows from vector to vector"),
        *buffer_fields("scale", "entry of the matrix scale file"),
        Field("scale_pitch", 16, "entries from vector to vector"),
    ],
    Unit.SFU: [
        Field("function", 3, "see hw.spec.functions.Function"),
        Field("reduce", 3, "see Reduce"),
        Field("target", 3, "see Target"),
        *count_fields("rows", "rows"),
        *count_fields("length", "elements a row"),
        Field("causal", 1, "row r has r elements more than row 0"),
        Field("exchange", 1, "write in all cores"),
        Field("exchange_pitch", 16, "rows from core to core"),
        *_operand("a"),
        *_operand("b"),
        *_operand("c"),
        Field("b_constant", 32, "FP32 constant of B"),
        Field("c_constant", 32, "FP32 constant of C"),
        *buffer_fields("d", "row (entry) written first; ARGMAX: index of the first element"),
        Field("d_pitch", 16, "rows (entries) from row to row"),
        Field(
            "reduce_entry", 10, "scalar file entry of the first row's reduction; next rows follow"
        ),
        Field("restart", 1, "ARGMAX: forget the earlier maximum"),
    ],
    Unit.SYS: [],
}


def instruction_fields(unit: Unit, opcode: Opcode) -> list[Field]:
    """Fields of one opcode of one unit, from bit 0 on.

    Raises
    ------
    KeyError
        If the opcode is not one of the instruction set.
    """
    own = EXECUTE[unit] if opcode == Opcode.EXECUTE else CONTROL[opcode]
    return [*HEADER, *own]


def instruction_bits(unit: Unit) -> int:
    """Width of the unit's instructions in bits: that of its longest, rounded up to 32."""
    longest = max(
        sum(field.width for field in instruction_fields(unit, opcode))
        for opcode in (*CONTROL, Opcode.EXECUTE)
    )
    return -(-longest // 32) * 32


def encode(unit: Unit, opcode: Opcode, **values: int) -> int:
    """Instruction word; fields not named are zero.

    Raises
    ------
    ValueError
        If a field is unknown or its value does not fit.
    """
    word = 0
    position = 0
    values = {"opcode": int(opcode), **values}
    for field in instruction_fields(unit, opcode):
        value = int(values.pop(field.name, 0))
        if not 0 <= value < 1 << field.width:
            raise ValueError(
                f"{unit.name} {opcode.name}: {field.name} = {value} needs more than {field.width} bits"
            )
        word |= value << position
        position += field.width
    if values:
        raise ValueError(f"{unit.name} {opcode.name}: unknown fields {sorted(values)}")
    return word


def decode(unit: Unit, word: int) -> dict[str, int]:
    """Fields of an instruction word by name.

    Raises
    ------
    ValueError
        If the opcode is illegal.
    """
    try:
        opcode = Opcode(word & 0xF)
        layout = instruction_fields(unit, opcode)
    except (ValueError, KeyError):
        raise ValueError(f"{unit.name}: illegal opcode {word & 0xF}") from None
    values: dict[str, int] = {}
    for field in layout:
        values[field.name] = word & ((1 << field.width) - 1)
        word >>= field.width
    return values


ADDRESS_BITS = 28
BUFFER_BITS = 16
LANE_BITS = 16


@functools.cache
def operation_fields(unit: Unit) -> tuple[tuple[str, int], ...]:
    """Name and width of what a unit receives: its EXECUTE fields with every operand evaluated.

    A count `x` replaces its fields `x_cap ...`, a buffer address `x` its fields `x_base ...`; the memory
    address is `address`, with `lane` (the register bits that the shift dropped) for ST.
    `sync` is 1 for SYNC, when no other field counts. SYS receives `position`.
    """
    result = [("sync", 1)]
    for field in EXECUTE[unit]:
        operand, _, part = field.name.rpartition("_")
        if field.name == "address_base":
            result.append(("address", ADDRESS_BITS))
            if unit == Unit.ST:
                result.append(("lane", LANE_BITS))
        elif part == "cap":
            result.append((operand, COUNT_BITS))
        elif part == "base":
            result.append((operand, BUFFER_BITS))
        elif not field.name.startswith("address_") and not _is_operand_part(unit, operand, part):
            result.append((field.name, field.width))
    if unit == Unit.SYS:
        result.append(("position", COUNT_BITS))
    return tuple(result)


def _is_operand_part(unit: Unit, operand: str, part: str) -> bool:
    parts = {
        "register",
        "offset",
        "shift",
        "scale",
        "level",
        "step",
        "level0",
        "stride0",
        "level1",
        "stride1",
    }
    names = {field.name for field in EXECUTE[unit]}
    return part in parts and (f"{operand}_cap" in names or f"{operand}_base" in names)
