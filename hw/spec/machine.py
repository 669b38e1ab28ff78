"""Geometry of a flight processor and of the memory beside it: frozen dataclasses.

Everything that hardware, emulator and compiler need to know of a machine is a field or a property
here; nothing is derived anywhere else.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from hw.spec.instructions import ENCODING_VERSION
from hw.spec.weight_format import StepFormat, step_formats
from hw.spec.wires import ACTIVATION_BITS, WiredShape, parse_shape

__all__ = ["MATRIX_ELEMENTS", "MachineSpec", "MemorySpec"]

MATRIX_ELEMENTS = ("multiplier", "dsp", "shift_add")
"""What multiplies: an operator, DSP slices, or shifted additions."""


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
