"""Geometry of a flight processor and of the memory beside it: frozen dataclasses, read from YAML.

Everything that hardware, emulator and compiler need to know of a machine is a field or a property
here; nothing is derived anywhere else.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cached_property
from typing import Any, NoReturn

from hw.spec.errors import InputError
from hw.spec.instructions import ENCODING_VERSION
from hw.spec.targets import TARGETS, list_targets, read_target, require_family, shown
from hw.spec.weight_format import StepFormat, WeightFormat, step_formats
from hw.spec.wires import ACTIVATION_BITS, WiredShape, parse_shape

__all__ = [
    "TARGETS",
    "MachineSpec",
    "MemorySpec",
    "check_machine",
    "list_targets",
    "load_machine",
    "machine_from_dict",
]


def _is_power_of_two(value: int) -> bool:
    return value > 0 and (value & (value - 1)) == 0


@dataclass(frozen=True, kw_only=True)
class MemorySpec:
    """Timing of one memory channel, in core cycles; all channels of a core run in lockstep.

    Parameters
    ----------
    words : int
        Capacity, in words of `MachineSpec.word_bytes` (all channels side by side).
    read_latency : int
        Cycles from the acceptance of a read burst to its first beat when the row is open and the bus
        is free.
    write_latency : int
        Cycles from the end of a write burst's transfer to its response.
    banks, row_words : int
        Banks of a channel; consecutive words of a row. Consecutive rows lie in consecutive banks.
    activate : int
        Cycles to close a row and open another one in the same bank.
    turnaround : int
        Bus cycles lost when the direction of transfer changes.
    refresh_interval, refresh_cycles : int
        Every `refresh_interval` cycles the bus stops for `refresh_cycles` and all rows close.
    beat_numerator, beat_denominator : int
        The bus carries `beat_numerator` beats every `beat_denominator` cycles (at most one a cycle).
    """

    words: int
    read_latency: int
    write_latency: int
    banks: int
    row_words: int
    activate: int
    turnaround: int
    refresh_interval: int
    refresh_cycles: int
    beat_numerator: int = 1
    beat_denominator: int = 1


@dataclass(frozen=True, kw_only=True)
class MachineSpec:
    """One flight processor: geometry, buffer depths, limits, and its memory.

    Parameters
    ----------
    channels, bus_bytes : int
        Memory channels, and bytes a beat of each one's AXI4 port (powers of two). A *word* is one beat
        of all channels side by side.
    drain_lanes : int
        Outputs a cycle that leave the matrix engine's accumulators.
    stream_words, scale_words, input_words : int
        Depths of the weight stream ring, the group scale ring and the vector unit's input buffer.
    vector_rows, result_rows, activation_rows, store_rows : int
        Depths, in rows of `lanes` elements (`store_rows`: rows of `matrix_rows` bytes).
    scalars, matrix_scales : int
        Entries of the scalar file and of the matrix engine's output scale file.
    burst_beats, read_outstanding, write_outstanding : int
        Longest AXI burst (aligned to its own length) and bursts under way.
    instructions : int
        Instructions that each sequencer can hold.
    tokens : int
        Entries of the token buffer: longest prompt plus generated tokens.
    watchdog_cycles : int
        Cycles without a retirement after which the processor stops with a deadlock status.
    vector_lanes : int
        FP32 elements that the vector unit processes a cycle; 0 (the default) stands for a whole word of them.
    matrix_columns : int
        Activation vectors that the matrix engine multiplies at a time, 1 or 2.
    weight_formats : tuple of str
        Formats of `hw.spec.weight_format.WeightFormat` that the matrix engine is built with; INT8 (keys and values)
        always is.
    sparse : int
        1: the matrix engine has sparse multiplexers, for N of 16.
    matrix_element : str
        What multiplies: `multiplier` (inferred, by nibbles), `dsp` (DSP48E2) or `shift_add`; `pe` in a target file is the same.
    logic_slots : int
        Of the four slots of a row of DSP slices that only weights of up to 4 bits use, how many multiply in lookup tables.
    logic_rows : int
        Rows of a core, the first ones, that have `logic_slots`; 0: all.
    rows_per_scaler : int
        Rows of the matrix engine that share a scale multiplier and a 64-bit adder; one row a cycle.
    cores : int
        Equal cores, each with memory channels of its own.
    exchange_latency : int
        Registers between cores, in cycles.
    cache_reads : int
        How often programs read keys and values for a token; more than once only to repeat what other flows do.
    wired_bits : int
        Bits of each activation a cycle into hardwired matrices, 1, 2 or 4; 0: all weights come from memory.
    wired_shapes : tuple of str
        Of each hardwired matrix: inputs x outputs. Empty in a target that is no particular model's.
    wired_digest : str
        Identity of their weights (`hw.spec.wires.Wires.digest`); empty where weights are not known.
    """

    name: str
    clock_hz: int
    channels: int
    bus_bytes: int
    drain_lanes: int
    stream_words: int
    scale_words: int
    input_words: int
    vector_rows: int
    result_rows: int
    activation_rows: int
    store_rows: int
    scalars: int
    matrix_scales: int
    burst_beats: int
    read_outstanding: int
    write_outstanding: int
    instructions: int
    tokens: int
    watchdog_cycles: int
    memory: MemorySpec
    vector_lanes: int = 0
    matrix_columns: int = 1
    weight_formats: tuple[str, ...] = ("INT8", "INT4")
    sparse: int = 0
    matrix_element: str = "multiplier"
    logic_slots: int = 0
    logic_rows: int = 0
    rows_per_scaler: int = 1
    cores: int = 1
    exchange_latency: int = 4
    cache_reads: int = 1
    wired_bits: int = 0
    wired_shapes: tuple[str, ...] = ()
    wired_digest: str = ""

    @cached_property
    def word_bytes(self) -> int:
        """Bytes of one beat of all channels."""
        return self.channels * self.bus_bytes

    @cached_property
    def lanes(self) -> int:
        """FP32 elements that the vector unit processes a cycle; one row of its buffers."""
        return self.vector_lanes or self.word_bytes // 4

    @property
    def word_rows(self) -> int:
        """Rows of `lanes` FP32 in a word."""
        return self.word_bytes // (4 * self.lanes)

    @property
    def block_rows(self) -> int:
        """Rows of the result buffer that a block of `matrix_rows` outputs takes."""
        return self.matrix_rows // self.lanes

    @cached_property
    def step_formats(self) -> tuple[StepFormat, ...]:
        """What steps of the matrix engine may be made of."""
        return tuple(step_formats(self.weight_formats, bool(self.sparse)))

    @cached_property
    def granule(self) -> int:
        """Elements to which the vector unit rounds a length up: max(lanes, 8)."""
        return max(self.lanes, 8)

    @cached_property
    def matrix_rows(self) -> int:
        """Outputs that the matrix engine computes side by side; one word of 16-bit scales."""
        return self.word_bytes // 2

    def row_logic_slots(self, row: int) -> int:
        """Slots of a row of the matrix engine that multiply in lookup tables."""
        return self.logic_slots if row < (self.logic_rows or self.matrix_rows) else 0

    @property
    def step_words(self) -> int:
        """Stream words that the matrix engine consumes a cycle."""
        return 2

    @cached_property
    def stream_alignment(self) -> int:
        """Quarters of a word at whose multiples metadata and weights of a step begin: 8 (two words), 4, 2 or 1."""
        sizes = [8]
        for step in self.step_formats:
            if step.kept:
                sizes += [4 * step.metadata_words, 4 * -(-step.weight_quarters // 4)]
            else:
                sizes.append(step.weight_quarters)
        return math.gcd(*sizes)

    def step_elements(self, bits: int) -> int:
        """Elements along K that one step covers, for weights of `bits` bits: 4 (INT8) or 8 (INT4)."""
        return self.step_words * self.word_bytes * 8 // (bits * self.matrix_rows)

    @property
    def multipliers(self) -> int:
        """8x8 multipliers of the matrix engine."""
        return self.matrix_rows * self.step_elements(4)

    @property
    def activation_row_bytes(self) -> int:
        """Bytes of a row of the activation buffer memory: all that a step may need."""
        return max(self.granule, *(step.alignment for step in self.step_formats))

    @property
    def drain_cycles(self) -> int:
        """Cycles to empty `matrix_rows` accumulators."""
        return self.matrix_rows // self.drain_lanes

    @cached_property
    def wired_matrices(self) -> tuple[WiredShape, ...]:
        """Shapes of the hardwired matrices."""
        return tuple(parse_shape(text) for text in self.wired_shapes)

    @property
    def wired_digits(self) -> int:
        """Cycles in which hardwired matrices take an activation vector."""
        return ACTIVATION_BITS // self.wired_bits

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dictionary of every field, as a target file would have it."""
        content = asdict(self)
        for name in ("weight_formats", "wired_shapes"):
            content[name] = list(content[name])
        return content

    @property
    def hash(self) -> int:
        """32-bit identity of everything but the clock, the name, the memory's timing and what only programs know.

        Programs carry it; hardware and emulator refuse a program of another machine.
        """
        content = self.to_dict()
        content["memory"] = {"words": self.memory.words}
        del content["name"], content["clock_hz"], content["cache_reads"]
        for name in ("logic_slots", "logic_rows"):
            if not content[name]:
                del content[name]
        if not self.wired_bits:
            del content["wired_bits"], content["wired_shapes"], content["wired_digest"]
        content["encoding"] = ENCODING_VERSION
        text = json.dumps(content, sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


_POWERS = {
    "channels": (1, 32),
    "bus_bytes": (4, 128),
    "drain_lanes": (1, 32),
    "stream_words": (2, 1 << 16),
    "scale_words": (2, 1 << 16),
    "input_words": (2, 1 << 16),
    "vector_rows": (2, 1 << 16),
    "result_rows": (2, 1 << 16),
    "activation_rows": (2, 1 << 16),
    "store_rows": (2, 1 << 16),
    "scalars": (2, 1024),
    "matrix_scales": (2, 1024),
    "burst_beats": (1, 256),
    "read_outstanding": (1, 256),
    "write_outstanding": (1, 256),
    "instructions": (2, 4096),
    "tokens": (2, 8192),
    "matrix_columns": (1, 2),
    "rows_per_scaler": (1, 256),
    "memory.words": (2, 1 << 28),
    "memory.banks": (1, 256),
    "memory.row_words": (1, 1 << 28),
}
"""Fields that are powers of two, with the least and the largest of each."""

_WHOLE = {
    "clock_hz": (1, 10**11),
    "watchdog_cycles": (1000, (1 << 31) - 1),
    "sparse": (0, 1),
    "cache_reads": (1, 8),
    "logic_slots": (0, 4),
    "logic_rows": (0, 256),
    "cores": (1, 8),
    "exchange_latency": (1, 64),
    "memory.read_latency": (2, (1 << 16) - 1),
    "memory.write_latency": (1, (1 << 16) - 1),
    "memory.activate": (0, (1 << 16) - 1),
    "memory.turnaround": (0, (1 << 16) - 1),
    "memory.refresh_interval": (1, (1 << 32) - 1),
    "memory.refresh_cycles": (0, (1 << 16) - 1),
    "memory.beat_numerator": (1, (1 << 16) - 1),
    "memory.beat_denominator": (1, (1 << 16) - 1),
}
"""The other numbers: what the register map, the memory model and the field widths of instructions allow."""

MATRIX_ELEMENTS = ("multiplier", "dsp", "shift_add")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def check_machine(spec: MachineSpec, where: str) -> MachineSpec:
    """Return `spec` if it can be built; otherwise raise `InputError` naming `where` and the field."""

    def fail(field: str, expected: str, found: object) -> NoReturn:
        raise InputError(f"{where}: {field}: expected {expected}, found {shown(found)}")

    if not _NAME.fullmatch(spec.name):
        fail("name", "up to 64 letters, digits, '_', '.' and '-'", spec.name)
    for field, (least, most) in (_POWERS | _WHOLE).items():
        owner = spec.memory if field.startswith("memory.") else spec
        value = getattr(owner, field.removeprefix("memory."))
        kind = "a power of two" if field in _POWERS else "a whole number"
        if not least <= value <= most or (field in _POWERS and not _is_power_of_two(value)):
            fail(field, f"{kind} from {least} to {most}", value)
    memory = spec.memory
    if not 8 <= spec.word_bytes <= 512:
        fail("channels * bus_bytes", "8 to 512 bytes", spec.word_bytes)
    most = spec.word_bytes // 4
    if spec.vector_lanes and not (
        2 <= spec.vector_lanes <= most and _is_power_of_two(spec.vector_lanes)
    ):
        fail("vector_lanes", f"a power of two from 2 to {most}", spec.vector_lanes)
    _check_matrix(spec, fail)
    _check_wires(spec, fail)
    if spec.drain_lanes > spec.lanes:
        fail("drain_lanes", f"at most the {spec.lanes} lanes", spec.drain_lanes)
    if spec.burst_beats * spec.bus_bytes > 4096:
        fail(
            "burst_beats",
            f"bursts of at most 4096 bytes: {4096 // spec.bus_bytes} beats",
            spec.burst_beats,
        )
    if memory.row_words < spec.burst_beats:
        fail("memory.row_words", f"at least burst_beats ({spec.burst_beats})", memory.row_words)
    if memory.words < spec.burst_beats:
        fail("memory.words", f"at least burst_beats ({spec.burst_beats})", memory.words)
    if memory.beat_numerator > memory.beat_denominator:
        fail(
            "memory.beat_numerator",
            f"at most beat_denominator ({memory.beat_denominator})",
            memory.beat_numerator,
        )
    # A burst must not reach past the refresh behind the next one, whatever is under way before it.
    ahead = spec.burst_beats * (spec.read_outstanding + spec.write_outstanding)
    ahead = ahead * memory.beat_denominator // memory.beat_numerator + memory.read_latency
    ahead += (spec.read_outstanding + spec.write_outstanding) * (
        memory.activate + memory.turnaround
    )
    if memory.refresh_interval <= memory.refresh_cycles + ahead:
        fail(
            "memory.refresh_interval",
            f"more than {memory.refresh_cycles + ahead}",
            memory.refresh_interval,
        )
    return spec


def _check_matrix(spec: MachineSpec, fail: Callable[[str, str, object], NoReturn]) -> None:
    names = [weight.name for weight in WeightFormat]
    if (
        "INT8" not in spec.weight_formats
        or not set(spec.weight_formats) <= set(names)
        or len(set(spec.weight_formats)) < len(spec.weight_formats)
    ):
        expected = f"different names of {', '.join(names)}, INT8 among them"
        fail("weight_formats", expected, " ".join(spec.weight_formats))
    if spec.matrix_element not in MATRIX_ELEMENTS:
        fail("matrix_element", f"one of {', '.join(MATRIX_ELEMENTS)}", spec.matrix_element)
    if spec.logic_slots and spec.matrix_element != "dsp":
        fail("logic_slots", "0 where matrix_element is not dsp", spec.logic_slots)
    if spec.logic_rows % 2 or spec.logic_rows > spec.matrix_rows:
        fail("logic_rows", f"an even number up to {spec.matrix_rows}", spec.logic_rows)
    if spec.rows_per_scaler > spec.drain_cycles:
        expected = f"at most matrix_rows / drain_lanes ({spec.drain_cycles})"
        fail("rows_per_scaler", expected, spec.rows_per_scaler)


def _check_wires(spec: MachineSpec, fail: Callable[[str, str, object], NoReturn]) -> None:
    if spec.wired_bits not in (0, 1, 2, 4):
        fail("wired_bits", "0, 1, 2 or 4 (bits of an activation a cycle)", spec.wired_bits)
    if not spec.wired_bits and (spec.wired_shapes or spec.wired_digest):
        fail("wired_bits", "1, 2 or 4 where there are wired_shapes or a wired_digest", 0)
    if spec.wired_digest and not re.fullmatch(r"[0-9a-f]{32}", spec.wired_digest):
        fail("wired_digest", "32 hexadecimal digits", spec.wired_digest)
    if spec.wired_bits and spec.cores > 1:
        fail("cores", "1 with hardwired matrices", spec.cores)
    if len(spec.wired_shapes) >= 1 << 12:
        fail("wired_shapes", "fewer than 4096 matrices", len(spec.wired_shapes))
    for text in spec.wired_shapes:
        try:
            shape = parse_shape(text)
        except ValueError:
            fail("wired_shapes", "inputs x outputs, as 64x512", text)
        if shape.inputs % spec.activation_row_bytes or shape.outputs % spec.matrix_rows:
            expected = (
                f"multiples of {spec.activation_row_bytes} inputs and {spec.matrix_rows} outputs"
            )
            fail("wired_shapes", expected, text)


def machine_from_dict(content: object, where: str) -> MachineSpec:
    """Build and check a `MachineSpec` from the content of a target file.

    A value may be a plain value or a mapping with `value` and `source` (what the figure rests on).
    """
    if isinstance(content, dict) and "pe" in content:
        if "matrix_element" in content:
            raise InputError(f"{where}: pe, matrix_element: expected one of them, found both")
        content = {"matrix_element" if k == "pe" else k: v for k, v in content.items()}
    values = _plain_fields(content, MachineSpec, where)
    values["memory"] = MemorySpec(**_plain_fields(values["memory"], MemorySpec, f"{where}: memory"))
    return check_machine(MachineSpec(**values), where)


def _plain_fields(content: object, kind: type, where: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise InputError(f"{where}: expected a mapping of fields, found {shown(content)}")
    known = {f.name: f for f in fields(kind)}
    if kind is MachineSpec:
        content = require_family(content, "flight", where)
    values: dict[str, Any] = {}
    for name, value in content.items():
        if name in ("family", "description", "board", "fitted") and kind is MachineSpec:
            continue
        if name not in known:
            raise InputError(f"{where}: {shown(name)}: unknown field (known: {', '.join(known)})")
        if isinstance(value, dict) and name != "memory":
            if set(value) != {"value", "source"}:
                raise InputError(f"{where}: {name}: expected value and source, found other fields")
            value = value["value"]
        wanted, expected = _KINDS.get(name, (int, "a whole number"))
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise InputError(f"{where}: {name}: expected {expected}, found {shown(value)}")
        if isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise InputError(f"{where}: {name}: expected {expected}, found other items")
        values[name] = tuple(value) if isinstance(value, list) else value
    for name, field in known.items():
        if name not in values and field.default is MISSING:
            expected = _KINDS.get(name, (int, "a whole number"))[1]
            raise InputError(f"{where}: {name}: missing, expected {expected}")
    return values


_KINDS: dict[str, tuple[type, str]] = {
    "name": (str, "a name"),
    "memory": (dict, "a mapping of fields"),
    "weight_formats": (list, "a list of names"),
    "matrix_element": (str, "a name"),
    "wired_shapes": (list, "a list of shapes, inputs x outputs"),
    "wired_digest": (str, "hexadecimal digits"),
}


def load_machine(name_or_path: str) -> MachineSpec:
    """Read a bundled target by name, or a target file by path."""
    content, path = read_target(name_or_path)
    return machine_from_dict(content, str(path))
