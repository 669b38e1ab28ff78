"""What a flight processor can be: limits of each field, and what fields ask of each other."""

import re
from collections.abc import Callable
from typing import NoReturn

from hw.spec.errors import InputError
from hw.spec.machine import MATRIX_ELEMENTS, MachineSpec
from hw.spec.targets import shown
from hw.spec.weight_format import WeightFormat
from hw.spec.wires import parse_shape

__all__ = ["check_machine"]


def _is_power_of_two(value: int) -> bool:
    return value > 0 and (value & (value - 1)) == 0


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
