"""A small program by hand: one matrix product a token, embedding lookup and token loop included.

It uses all five units and every way between them. The token after `t` is the index of the largest element of
`weights @ embedding[t] * scale[t]`. Of several cores each has a part of every embedding, which they exchange, and the
weights of every `cores`-th output.
"""

import numpy as np

from hw.spec.functions import Function
from hw.spec.instructions import (
    Condition,
    Destination,
    Opcode,
    Pattern,
    Reduce,
    Register,
    Source,
    Target,
    Unit,
    encode,
)
from hw.spec.machine import MachineSpec
from hw.spec.program import Program
from hw.spec.weight_format import WeightFormat

STORED = 2
"""Logits a token that ST writes to memory."""


def _mask(*units: Unit) -> int:
    return sum(1 << unit for unit in units)


def _count(name: str, value: int) -> dict[str, int]:
    return {f"{name}_cap": value, f"{name}_offset": value, f"{name}_scale": 1}


class TokenProgram:
    """The program, its data and what it must compute.

    Attributes
    ----------
    program : Program
    output : int
        Word address of the first stored logit; each token stores `STORED` words in every core.
    """

    def __init__(self, spec: MachineSpec, seed: int = 1) -> None:
        self.spec = spec
        rng = np.random.default_rng(seed)
        self.part = spec.granule
        self.length = spec.cores * self.part
        self.vocabulary = spec.cores * spec.matrix_rows
        self.weights = rng.integers(-128, 128, (self.vocabulary, self.length)).astype(np.int8)
        self.embedding = rng.integers(-100, 101, (self.vocabulary, self.length)).astype(np.float32)
        self.scale = rng.choice(np.array([0.25, 0.5, 1, 2], np.float32), self.vocabulary)
        self.rows = self.part // spec.lanes
        self.weight_words = self.length // 4 * spec.step_words
        # An embedding is followed by a row that holds its scale. None crosses the end of a burst, so that
        # the time to load one does not depend on the token.
        self.embedding_words = -(-(self.rows + 1) // spec.word_rows)
        self.pitch = 1 << (self.embedding_words - 1).bit_length()
        self.embedding_base = -(-(1 + self.weight_words) // self.pitch) * self.pitch
        self.output = self.embedding_base + self.vocabulary * self.pitch
        self.program = Program(spec, self._instructions(), self._memory())

    def logits(self, token: int) -> np.ndarray:
        """Logits behind a token; float32 [vocabulary], exact."""
        sums = self.weights.astype(np.int64) @ self.embedding[token].astype(np.int64)
        return sums.astype(np.float32) * self.scale[token]

    def tokens(self, prompt: list[int], count: int) -> list[int]:
        """Prompt and `count` generated tokens."""
        tokens = list(prompt)
        for _ in range(count):
            tokens.append(int(np.argmax(self.logits(tokens[-1]))))
        return tokens

    def stored(self, token: int, core: int = 0) -> list[float]:
        """The logits behind a token that a core stores."""
        outputs = np.arange(STORED) * self.spec.lanes
        return self.logits(token)[outputs * self.spec.cores + core].tolist()

    def _memory(self) -> np.ndarray:
        images = [self._image(core) for core in range(self.spec.cores)]
        return images[0] if len(images) == 1 else np.stack(images)

    def _image(self, core: int) -> np.ndarray:
        spec = self.spec
        memory = np.zeros((self.output, spec.word_bytes), np.uint8)
        # Step s holds elements 4s to 4s+3 of every row.
        own = self.weights[core :: spec.cores]
        steps = own.reshape(spec.matrix_rows, -1, 4).transpose(1, 0, 2)
        weights = np.ascontiguousarray(steps).view(np.uint8).reshape(-1, spec.word_bytes)
        memory[1 : 1 + self.weight_words] = weights
        table = np.zeros((self.vocabulary, self.pitch * spec.word_bytes // 4), np.float32)
        table[:, : self.part] = self.embedding[:, core * self.part : (core + 1) * self.part]
        table[:, self.rows * spec.lanes] = self.scale
        memory[self.embedding_base :] = table.view(np.uint8).reshape(-1, spec.word_bytes)
        return memory

    def _loop(self, unit: Unit, body: list[int]) -> list[int]:
        """Run `body` for every position until SYS says END; it starts when SYS has sent a token."""
        head = [
            encode(unit, Opcode.SYNC, wait=_mask(Unit.SYS)),
            encode(unit, Opcode.BRANCH, condition=Condition.END, target=4 + len(body)),
        ]
        tail = [
            encode(unit, Opcode.INCREMENT, count_cap=1, count_offset=1, count_scale=1),
            encode(unit, Opcode.BRANCH, condition=Condition.ALWAYS, target=0),
            encode(unit, Opcode.HALT),
        ]
        return [*head, *body, *tail]

    def _instructions(self) -> dict[Unit, list[int]]:
        execute = Opcode.EXECUTE
        load = [
            encode(
                Unit.LD,
                execute,
                destination=Destination.INPUT,
                random=1,
                address_base=self.embedding_base,
                address_register=Register.TOKEN,
                address_factor=self.pitch,
                **_count("length", self.embedding_words),
                signal=_mask(Unit.SFU),
            ),
            encode(
                Unit.LD,
                execute,
                destination=Destination.STREAM,
                address_base=1,
                **_count("length", self.weight_words),
                signal=_mask(Unit.MPE),
            ),
        ]
        store = [
            encode(
                Unit.ST,
                execute,
                wait=_mask(Unit.SFU),
                signal=_mask(Unit.SFU),
                pattern=Pattern.SCALAR,
                address_base=self.output,
                address_register=Register.POSITION,
                address_factor=STORED,
                rows=STORED,
                pitch=1,
                steps=1,
                source_pitch=1,
            )
        ]
        product = [
            encode(
                Unit.MPE,
                execute,
                wait=_mask(Unit.LD, Unit.SFU),
                signal=_mask(Unit.SFU),
                format=int(WeightFormat.INT8),
                first=1,
                last=1,
                pop=1,
                group_steps=1,
                **_count("blocks", 1),
                **_count("steps", self.length // 4),
                **_count("vectors", 1),
            )
        ]
        system = [
            encode(Unit.SYS, execute, signal=_mask(Unit.LD, Unit.ST, Unit.MPE, Unit.SFU)),
            encode(Unit.SYS, Opcode.BRANCH, condition=Condition.END, target=5),
            encode(Unit.SYS, Opcode.SYNC, wait=_mask(Unit.SFU)),
            encode(Unit.SYS, Opcode.INCREMENT, count_cap=1, count_offset=1, count_scale=1),
            encode(Unit.SYS, Opcode.BRANCH, condition=Condition.ALWAYS, target=0),
            encode(Unit.SYS, Opcode.HALT),
        ]
        return {
            Unit.LD: self._loop(Unit.LD, load),
            Unit.ST: self._loop(Unit.ST, store),
            Unit.MPE: self._loop(Unit.MPE, product),
            Unit.SFU: self._loop(Unit.SFU, self._vector()),
            Unit.SYS: system,
        }

    def _vector(self) -> list[int]:
        def vector(**fields: int) -> int:
            return encode(Unit.SFU, Opcode.EXECUTE, function=Function.IDENTITY.value, **fields)

        embedding = {"wait": _mask(Unit.LD), "a_source": Source.INPUT, **_count("rows", 1)}
        exchange: list[int] = []
        if self.spec.cores > 1:
            whole = {"target": Target.VECTOR, "exchange": 1, "exchange_pitch": self.rows}
            exchange = [vector(**embedding, **whole, **_count("length", self.part))]
            embedding = {"a_source": Source.VECTOR, **_count("rows", 1)}
        return [
            *exchange,
            vector(target=Target.ACTIVATION, **embedding, **_count("length", self.length)),
            vector(
                target=Target.MATRIX_SCALE,
                **_count("rows", 1),
                **_count("length", 1),
                a_source=Source.INPUT,
                a_base=self.rows,
                signal=_mask(Unit.MPE),
            ),
            vector(
                wait=_mask(Unit.MPE),
                reduce=Reduce.ARGMAX,
                restart=1,
                **_count("rows", 1),
                **_count("length", self.spec.matrix_rows),
                a_source=Source.RESULT,
            ),
            vector(
                target=Target.STORE_FLOAT,
                **_count("rows", STORED),
                **_count("length", 1),
                a_source=Source.RESULT,
                a_pitch=1,
                d_pitch=1,
                signal=_mask(Unit.ST),
            ),
            # The next token may come once all units have seen whether this one is the last.
            encode(Unit.SFU, Opcode.SYNC, wait=_mask(Unit.ST), signal=_mask(Unit.SYS)),
        ]
