"""Everything that the processor and its memory hold between instructions, as NumPy arrays."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from emulator.lazy import zeros
from hw.spec.machine import MachineSpec
from hw.spec.wires import Wires

__all__ = ["Arrays", "MachineState", "allocate", "order_key"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]

# Entries of a core's registers.
STREAM_WRITE, STREAM_READ, SCALE_WRITE, SCALE_READ = range(4)
ACCUMULATED, BEST_KNOWN, BEST_KEY, BEST_INDEX, TOKEN, END = range(4, 10)
REGISTERS = 10


class Arrays(NamedTuple):
    """What all cores hold, the first index the core; see `MachineState`, which shows one of them."""

    memory: Bytes
    stream: Bytes
    scale_ring: Bytes
    input: Floats
    vector: Floats
    result: Floats
    scalars: Floats
    matrix_scales: Floats
    activation: npt.NDArray[np.int8]
    store: Bytes
    tokens: Integers
    accumulators: Integers
    registers: Integers


def allocate(spec: MachineSpec) -> Arrays:
    """Arrays of zeros for the cores of a machine; memory takes room only where it is written."""
    cores, word, lanes = spec.cores, spec.word_bytes, spec.lanes
    arrays = Arrays(
        memory=zeros((cores, spec.memory.words, word)),
        stream=np.zeros((cores, spec.stream_words, word), np.uint8),
        scale_ring=np.zeros((cores, spec.scale_words, word), np.uint8),
        input=np.zeros((cores, spec.input_words * spec.word_rows, lanes), np.float32),
        vector=np.zeros((cores, spec.vector_rows, lanes), np.float32),
        result=np.zeros((cores, spec.result_rows, lanes), np.float32),
        scalars=np.zeros((cores, spec.scalars), np.float32),
        matrix_scales=np.zeros((cores, spec.matrix_scales), np.float32),
        activation=np.zeros((cores, spec.activation_rows * lanes), np.int8),
        store=np.zeros((cores, spec.store_rows * spec.matrix_rows), np.uint8),
        tokens=np.zeros((cores, spec.tokens), np.int64),
        accumulators=np.zeros((cores, spec.matrix_columns, spec.matrix_rows), np.int64),
        registers=np.zeros((cores, REGISTERS), np.int64),
    )
    arrays.registers[:, ACCUMULATED] = spec.matrix_columns
    return arrays


def order_key(value: float) -> int:
    """FP32 as an integer that orders as the vector unit does: by value, and -0 below +0."""
    bits = int(np.float32(value).view(np.int32))
    return bits if bits >= 0 else bits ^ 0x7FFFFFFF


class _Register:
    """One entry of the registers, as an attribute."""

    def __init__(self, entry: int) -> None:
        self.entry = entry

    def __get__(self, state: "MachineState", _: object = None) -> int:
        return int(state.registers[self.entry])

    def __set__(self, state: "MachineState", value: int) -> None:
        state.registers[self.entry] = value


class MachineState:
    """Buffers, files, rings and memory of one core, all zero at first.

    Parameters
    ----------
    spec : MachineSpec
    arrays : Arrays
        Of all cores; new ones if not given.
    core : int
        Which one this is.

    Attributes
    ----------
    memory : uint8 [words, word_bytes]
    stream, scale_ring : uint8 [stream_words, word_bytes], uint8 [scale_words, word_bytes]
    stream_write, stream_read, scale_write, scale_read : int
        Ring pointers, in words, not wrapped (they only grow; index modulo the depth).
    input, vector, result : float32 [rows, lanes]
        A word of the input buffer is `word_rows` rows.
    scalars, matrix_scales : float32 [entries]
    activation : int8 [activation_rows * lanes]
    store : uint8 [store_rows * matrix_rows]
    tokens : int64 [tokens]
    accumulators : int64 [matrix_columns, matrix_rows]
    accumulated_columns : int
        Columns that the latest pass of the matrix engine used.
    best_value, best_index : float or None, int
        ARGMAX so far; `best_index` is what SYS takes as the next token.
    registers : int64 [REGISTERS]
        What of this is single numbers.
    prompt_length, steps, stop_tokens : int, int, tuple of int
        What the host wrote.
    forced : sequence of int
        Tokens that SYS takes behind the prompt instead of ARGMAX's; empty in a real run (for measuring loss).
    checked : bool
        Whether units look for accesses whose order would matter; only speed is gained without.
    wires : Wires or None
        Weights of the hardwired matrices.
    token, end : int, bool
        The shared registers that SYS sets.
    """

    stream_write, stream_read = _Register(STREAM_WRITE), _Register(STREAM_READ)
    scale_write, scale_read = _Register(SCALE_WRITE), _Register(SCALE_READ)
    accumulated_columns = _Register(ACCUMULATED)
    best_index = _Register(BEST_INDEX)
    token = _Register(TOKEN)

    def __init__(self, spec: MachineSpec, arrays: Arrays | None = None, core: int = 0) -> None:
        self.spec = spec
        self.core = core
        shared = arrays or allocate(spec)
        self.memory, self.stream, self.scale_ring = (
            shared.memory[core],
            shared.stream[core],
            shared.scale_ring[core],
        )
        self.input, self.vector, self.result = (
            shared.input[core],
            shared.vector[core],
            shared.result[core],
        )
        self.scalars, self.matrix_scales = shared.scalars[core], shared.matrix_scales[core]
        self.activation, self.store = shared.activation[core], shared.store[core]
        self.tokens, self.accumulators = shared.tokens[core], shared.accumulators[core]
        self.registers = shared.registers[core]
        self.prompt_length = 0
        self.steps = 0
        self.stop_tokens: tuple[int, ...] = ()
        self.forced: Sequence[int] = ()
        self.checked = True
        self.wires: Wires | None = None

    @property
    def end(self) -> bool:
        """The END flag."""
        return bool(self.registers[END])

    @end.setter
    def end(self, value: bool) -> None:
        self.registers[END] = value

    @property
    def best_value(self) -> float | None:
        """Largest value so far."""
        if not self.registers[BEST_KNOWN]:
            return None
        key = int(self.registers[BEST_KEY])
        bits = key if key >= 0 else key ^ 0x7FFFFFFF
        return float(np.array(bits, np.int64).astype(np.int32).view(np.float32))

    @best_value.setter
    def best_value(self, value: float | None) -> None:
        self.registers[BEST_KNOWN] = value is not None
        self.registers[BEST_KEY] = order_key(value) if value is not None else 0
