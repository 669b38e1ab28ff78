"""Everything that the processor and its memory hold between instructions, as NumPy arrays."""

from collections.abc import Sequence

import numpy as np

from hw.spec.machine import MachineSpec


class MachineState:
    """Buffers, files, rings and memory of one core, all zero at first.

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
    best_value, best_index : float, int
        ARGMAX so far; `best_index` is what SYS takes as the next token.
    prompt_length, steps, stop_tokens : int, int, tuple of int
        What the host wrote.
    forced : sequence of int
        Tokens that SYS takes behind the prompt instead of ARGMAX's; empty in a real run (for measuring loss).
    checked : bool
        Whether units look for accesses whose order would matter; only speed is gained without.
    token, end : int, bool
        The shared registers that SYS sets.
    """

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        word, lanes = spec.word_bytes, spec.lanes
        self.memory = np.zeros((spec.memory.words, word), np.uint8)
        self.stream = np.zeros((spec.stream_words, word), np.uint8)
        self.scale_ring = np.zeros((spec.scale_words, word), np.uint8)
        self.stream_write = self.stream_read = self.scale_write = self.scale_read = 0
        self.input = np.zeros((spec.input_words * spec.word_rows, lanes), np.float32)
        self.vector = np.zeros((spec.vector_rows, lanes), np.float32)
        self.result = np.zeros((spec.result_rows, lanes), np.float32)
        self.scalars = np.zeros(spec.scalars, np.float32)
        self.matrix_scales = np.zeros(spec.matrix_scales, np.float32)
        self.activation = np.zeros(spec.activation_rows * lanes, np.int8)
        self.store = np.zeros(spec.store_rows * spec.matrix_rows, np.uint8)
        self.tokens = np.zeros(spec.tokens, np.int64)
        self.accumulators = np.zeros((spec.matrix_columns, spec.matrix_rows), np.int64)
        self.accumulated_columns = spec.matrix_columns
        self.best_value: float | None = None
        self.best_index = 0
        self.prompt_length = 0
        self.steps = 0
        self.stop_tokens: tuple[int, ...] = ()
        self.forced: Sequence[int] = ()
        self.checked = True
        self.token = 0
        self.end = False
