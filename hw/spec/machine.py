"""Geometry of a flight processor and of the memory beside it: frozen dataclasses, read from YAML.

Everything that hardware, emulator and compiler need to know of a machine is a field or a property
here; nothing is derived anywhere else.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from hw.spec.errors import InputError
from hw.spec.instructions import ENCODING_VERSION

TARGETS = Path(__file__).resolve().parent.parent / "targets"


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

    @property
    def word_bytes(self) -> int:
        """Bytes of one beat of all channels."""
        return self.channels * self.bus_bytes

    @property
    def lanes(self) -> int:
        """FP32 elements that the vector unit processes a cycle; one word of FP32."""
        return self.word_bytes // 4

    @property
    def granule(self) -> int:
        """Elements to which the vector unit rounds a length up: max(lanes, 8)."""
        return max(self.lanes, 8)

    @property
    def matrix_rows(self) -> int:
        """Outputs that the matrix engine computes side by side; one word of 16-bit scales."""
        return self.word_bytes // 2

    @property
    def step_words(self) -> int:
        """Stream words that the matrix engine consumes a cycle."""
        return 2

    def step_elements(self, bits: int) -> int:
        """Elements along K that one step covers, for weights of `bits` bits: 4 (INT8) or 8 (INT4)."""
        return self.step_words * self.word_bytes * 8 // (bits * self.matrix_rows)

    @property
    def multipliers(self) -> int:
        """8x8 multipliers of the matrix engine."""
        return self.matrix_rows * self.step_elements(4)

    @property
    def activation_row_bytes(self) -> int:
        """Bytes of a row of the activation buffer memory: max(lanes, 8)."""
        return self.granule

    @property
    def drain_cycles(self) -> int:
        """Cycles to empty `matrix_rows` accumulators."""
        return self.matrix_rows // self.drain_lanes

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dictionary of every field."""
        return asdict(self)

    @property
    def hash(self) -> int:
        """32-bit identity of everything but the clock, the name and the memory's timing.

        Programs carry it; hardware and emulator refuse a program of another machine.
        """
        content = self.to_dict()
        content["memory"] = {"words": self.memory.words}
        del content["name"], content["clock_hz"]
        content["encoding"] = ENCODING_VERSION
        text = json.dumps(content, sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def check_machine(spec: MachineSpec, where: str) -> MachineSpec:
    """Return `spec` if it can be built; otherwise raise `InputError` naming `where` and the field."""

    def fail(field: str, expected: str, found: object) -> None:
        raise InputError(f"{where}: {field}: expected {expected}, found {found!r}")

    powers = ["channels", "bus_bytes", "drain_lanes", "stream_words", "scale_words", "input_words"]
    powers += ["vector_rows", "result_rows", "activation_rows", "store_rows", "scalars"]
    powers += ["matrix_scales", "burst_beats", "read_outstanding", "write_outstanding"]
    powers += ["instructions", "tokens"]
    for name in powers:
        if not _is_power_of_two(getattr(spec, name)):
            fail(name, "a power of two", getattr(spec, name))
    if not 8 <= spec.word_bytes <= 128:
        fail("channels * bus_bytes", "8 to 128 bytes", spec.word_bytes)
    if spec.bus_bytes < 4:
        fail("bus_bytes", "at least 4", spec.bus_bytes)
    if spec.drain_lanes > spec.lanes:
        fail("drain_lanes", f"at most the {spec.lanes} lanes", spec.drain_lanes)
    if spec.burst_beats * spec.bus_bytes > 4096 or spec.burst_beats > 256:
        fail("burst_beats", "bursts of at most 4096 bytes and 256 beats", spec.burst_beats)
    if spec.instructions > 4096:
        fail("instructions", "at most 4096", spec.instructions)
    for name in powers[3:12]:
        if getattr(spec, name) > 1 << 16:
            fail(name, "at most 65536", getattr(spec, name))
    for name in ("scalars", "matrix_scales"):
        if getattr(spec, name) > 1024:
            fail(name, "at most 1024", getattr(spec, name))
    if spec.clock_hz <= 0:
        fail("clock_hz", "a positive number of hertz", spec.clock_hz)
    if spec.watchdog_cycles < 1000:
        fail("watchdog_cycles", "at least 1000", spec.watchdog_cycles)
    memory = spec.memory
    for name in ("banks", "row_words", "words"):
        if not _is_power_of_two(getattr(memory, name)):
            fail(f"memory.{name}", "a power of two", getattr(memory, name))
    if memory.row_words < spec.burst_beats:
        fail("memory.row_words", f"at least burst_beats ({spec.burst_beats})", memory.row_words)
    if memory.words > 1 << 28:
        fail("memory.words", "at most 2**28", memory.words)
    if not 1 <= memory.beat_numerator <= memory.beat_denominator:
        fail("memory.beat_numerator", "1 to beat_denominator", memory.beat_numerator)
    if memory.read_latency < 2 or memory.write_latency < 1:
        fail("memory.read_latency", "read_latency >= 2, write_latency >= 1", memory.read_latency)
    for name in ("activate", "turnaround", "refresh_cycles"):
        if getattr(memory, name) < 0:
            fail(f"memory.{name}", "not negative", getattr(memory, name))
    ahead = spec.burst_beats * (spec.read_outstanding + spec.write_outstanding)
    ahead = ahead * memory.beat_denominator // memory.beat_numerator + memory.read_latency
    ahead += (spec.read_outstanding + spec.write_outstanding) * (memory.activate + memory.turnaround)
    if memory.refresh_interval <= memory.refresh_cycles + ahead:
        fail("memory.refresh_interval", f"more than {memory.refresh_cycles + ahead}", memory.refresh_interval)
    return spec


def machine_from_dict(content: object, where: str) -> MachineSpec:
    """Build and check a `MachineSpec` from the content of a target file.

    A value may be a plain value or a mapping with `value` and `source` (what the figure rests on).
    """
    values = _plain_fields(content, MachineSpec, where)
    values["memory"] = MemorySpec(**_plain_fields(values["memory"], MemorySpec, f"{where}: memory"))
    return check_machine(MachineSpec(**values), where)


def _plain_fields(content: object, kind: type, where: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise InputError(f"{where}: expected a mapping of fields, found {type(content).__name__}")
    known = {f.name: f for f in fields(kind)}
    values: dict[str, Any] = {}
    for name, value in content.items():
        if name in ("family", "description") and kind is MachineSpec:
            if name == "family" and value != "flight":
                raise InputError(f"{where}: family: expected 'flight', found {value!r}")
            continue
        if name not in known:
            raise InputError(f"{where}: {name}: unknown field (known: {', '.join(known)})")
        if isinstance(value, dict) and name != "memory":
            if set(value) != {"value", "source"}:
                raise InputError(f"{where}: {name}: expected value and source, found {sorted(value)}")
            value = value["value"]
        wanted = str if name == "name" else dict if name == "memory" else int
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise InputError(f"{where}: {name}: expected {wanted.__name__}, found {value!r}")
        values[name] = value
    for name, field in known.items():
        if name not in values and name not in ("beat_numerator", "beat_denominator"):
            raise InputError(f"{where}: {name}: missing (type {getattr(field.type, '__name__', field.type)})")
    return values


def list_targets() -> list[str]:
    """Names of the bundled targets."""
    return sorted(path.stem for path in TARGETS.glob("*.yaml"))


def load_machine(name_or_path: str) -> MachineSpec:
    """Read a bundled target by name, or a target file by path."""
    path = TARGETS / f"{name_or_path}.yaml"
    if not path.is_file():
        path = Path(name_or_path)
        if not path.is_file():
            names = ", ".join(list_targets())
            raise InputError(f"{name_or_path}: no such target or target file (bundled: {names})")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    return machine_from_dict(content, str(path))
