"""Programs of one length only: every loop unrolled, every count and load address a constant.

This is how instruction sets without loops and run-time registers are programmed, FlightLLM's among them. What cannot be a
constant here stays as it is: the embedding's address, which depends on the token, and ST's address, whose lane is a part of
POSITION; so POSITION is still counted, in those two units.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hw.spec.code_section import stored_bytes
from hw.spec.instructions import (
    COUNT_BITS,
    LOOP_DEPTH,
    Condition,
    Opcode,
    Register,
    Unit,
    decode,
    encode,
)
from hw.spec.program import Program

_ADDRESS = (1 << 28) - 1
_BUFFER = (1 << 16) - 1
_POSITION = (1 << COUNT_BITS) - 1
_COUNTS = {
    Unit.LD: ("length",),
    Unit.ST: (),
    Unit.MPE: ("blocks", "steps", "vectors"),
    Unit.SFU: ("rows", "length"),
    Unit.SYS: (),
}
_PLACES = {
    Unit.LD: {"buffer": 1},
    Unit.ST: {"source": 1},
    Unit.MPE: {"activation": 2, "result": 2, "scale": 1},
    Unit.SFU: {"a": 1, "b": 1, "c": 1, "d": 1},
    Unit.SYS: {},
}
_COUNTED = (Unit.ST, Unit.SYS)
"""Units that need POSITION still."""


@dataclass
class _State:
    """What the sequencer of one unit knows while it goes through its program."""

    prompt_length: int
    steps: int
    position: int = 0
    skipped: int = 0

    def register(self, number: int) -> int:
        """Value of a run-time register that is known before the program runs."""
        return {
            Register.ZERO: 0,
            Register.POSITION: self.position,
            Register.PROMPT_LENGTH: self.prompt_length,
            Register.STEPS: self.steps,
            Register.SKIPPED: self.skipped,
            Register.REST: max(0, self.position - self.skipped),
        }[Register(number)]

    def count(self, fields: dict[str, int], name: str, indices: list[int]) -> int:
        """A count operand."""
        level = fields[f"{name}_level"]
        index = indices[level] if level < len(indices) else 0
        register = self.register(fields[f"{name}_register"])
        found = (register + fields[f"{name}_offset"]) >> fields[f"{name}_shift"]
        found = found * fields[f"{name}_scale"] - index * fields[f"{name}_step"]
        return min(fields[f"{name}_cap"], max(0, found))

    def holds(self, condition: int) -> bool:
        """Whether a branch is taken; END is reached when all tokens are there."""
        match Condition(condition):
            case Condition.PREFILL:
                return self.position < self.prompt_length
            case Condition.END:
                return self.position >= self.steps
            case Condition.REST:
                return self.position > self.skipped
        return True

    def skip(self, fields: dict[str, int], indices: list[int]) -> None:
        """SKIP."""
        self.skipped = max(0, self.count(fields, "count", indices) - fields["less"])

    def move(self, fields: dict[str, int], indices: list[int]) -> None:
        """INCREMENT."""
        by = self.count(fields, "count", indices)
        self.position = (self.position + (-by if fields["backward"] else by)) & _POSITION


def straight_words(unit: Unit, words: list[int], prompt_length: int, tokens: int) -> list[int]:
    """The instructions of one unit that a run of `prompt_length` and `tokens` executes, one behind the other."""
    state = _State(prompt_length, prompt_length + tokens - 1)
    return list(_unroll(unit, [decode(unit, word) for word in words], state))


def _unroll(unit: Unit, program: list[dict[str, int]], state: _State) -> Iterator[int]:
    at = 0
    loops: list[list[int]] = []
    """Of each open loop: its index, and its rounds."""
    while True:
        fields = program[at]
        at += 1
        indices = [loop[0] for loop in loops]
        match Opcode(fields["opcode"]):
            case Opcode.LOOP:
                rounds = state.count(fields, "count", indices)
                if rounds:
                    loops.append([0, rounds])
                else:
                    at = fields["target"]
            case Opcode.END_LOOP:
                loops[-1][0] += 1
                if loops[-1][0] < loops[-1][1]:
                    at = fields["target"]
                else:
                    loops.pop()
            case Opcode.BRANCH:
                if state.holds(fields["condition"]):
                    at = fields["target"]
                    del loops[len(loops) - fields["close"] :]
            case Opcode.INCREMENT:
                if unit in _COUNTED:
                    by = state.count(fields, "count", indices)
                    yield encode(unit, Opcode.INCREMENT, **_constant("count", by), backward=fields["backward"])  # fmt: skip
                state.move(fields, indices)
            case Opcode.SKIP:
                state.skip(fields, indices)
            case Opcode.HALT:
                yield encode(unit, Opcode.HALT)
                return
            case Opcode.EXECUTE:
                yield encode(unit, Opcode.EXECUTE, **_resolved(unit, fields, state, indices))
            case _:
                yield encode(unit, Opcode.SYNC, wait=fields["wait"], signal=fields["signal"])


def _constant(name: str, value: int) -> dict[str, int]:
    return {f"{name}_cap": value, f"{name}_offset": value, f"{name}_scale": 1}


def _resolved(
    unit: Unit, fields: dict[str, int], state: _State, indices: list[int]
) -> dict[str, int]:
    """The fields of an EXECUTE with its operands as constants."""
    found = {name: value for name, value in fields.items() if name != "opcode"}

    def index(level: int) -> int:
        return indices[level] if level < len(indices) else 0

    for name in _COUNTS[unit]:
        count = state.count(fields, name, indices)
        for end in ("register", "shift", "level", "step"):
            found[f"{name}_{end}"] = 0
        found |= _constant(name, count)
    for name, terms in _PLACES[unit].items():
        for term in range(terms):
            step = index(fields[f"{name}_level{term}"]) * fields[f"{name}_stride{term}"]
            found[f"{name}_base"] = (found[f"{name}_base"] + step) & _BUFFER
            found[f"{name}_level{term}"] = found[f"{name}_stride{term}"] = 0
    if "address_base" in fields:
        strides = [fields[f"address_stride{level}"] for level in range(LOOP_DEPTH)]
        base = fields["address_base"] + sum(index(i) * s for i, s in enumerate(strides))
        if unit not in _COUNTED and fields["address_register"] != Register.TOKEN:
            register = state.register(fields["address_register"]) >> fields["address_shift"]
            base += register * fields["address_factor"]
            found["address_register"] = found["address_shift"] = found["address_factor"] = 0
        found["address_base"] = base & _ADDRESS
        for level in range(LOOP_DEPTH):
            found[f"address_stride{level}"] = 0
    return found


class StraightCount:
    """How many bytes `straight_words` take in a program file, counted without writing them.

    A run begins with a prologue, goes through the chunks of the prompt, takes a step for every position behind it, which begins
    with the output head of the position before, and ends with the last output head. Chunks and steps are counted once,
    wherever they occur; rounds of loops that are alike too.

    Parameters
    ----------
    program : Program
    """

    def __init__(self, program: Program) -> None:
        self._units = [_Counter(unit, words) for unit, words in program.instructions.items()]

    def run(self, prompt_length: int, tokens: int) -> int:
        """Bytes of the program of one run."""
        return sum(unit.run(prompt_length, tokens) for unit in self._units)

    def step(self, position: int) -> int:
        """Bytes of a program that computes the token behind position `position`, and nothing else."""
        return sum(unit.alone(position) for unit in self._units)


@dataclass(frozen=True)
class _Block:
    """A loop, or what a branch skips, with its body."""

    fields: dict[str, int]
    body: "tuple[_Item, ...]"

    @property
    def loop(self) -> bool:
        return self.fields["opcode"] == Opcode.LOOP

    def depends(self, level: int) -> bool:
        """Whether what is executed of it changes with the index of a loop around it."""
        inner = [item for item in self.body if isinstance(item, _Block)]
        own = (item.fields for item in inner if item.loop)
        charged = any(fields["count_step"] and fields["count_level"] == level for fields in own)
        return charged or any(item.depends(level) for item in inner)


_Item = _Block | dict[str, int]


def _parse(program: list[dict[str, int]], begin: int, end: int) -> tuple[_Item, ...]:
    """Instructions from `begin` to `end`, with the bodies of loops and branches inside them."""
    items: list[_Item] = []
    at = begin
    while at < end:
        fields = program[at]
        if fields["opcode"] == Opcode.LOOP:
            items.append(_Block(fields, _parse(program, at + 1, fields["target"] - 1)))
            at = fields["target"]
        elif fields["opcode"] == Opcode.BRANCH and not fields["close"]:
            items.append(_Block(fields, _parse(program, at + 1, fields["target"])))
            at = fields["target"]
        else:
            # A branch that leaves its loop skips what is behind it in the body.
            leaves = fields["opcode"] == Opcode.BRANCH
            items.append(_Block(fields, ()) if leaves else fields)
            at += 1
    return tuple(items)


class _Counter:
    """Counts the bytes of one unit's instructions."""

    def __init__(self, unit: Unit, words: list[int]) -> None:
        self.unit = unit
        fields = [decode(unit, word) for word in words]
        self._items = _parse(fields, 0, len(fields))
        *before, tokens, _ = self._items
        assert isinstance(tokens, _Block)
        self._before, self._token = before, tokens.body
        self._chunks: dict[tuple[int, int], int] = {}
        self._steps: dict[tuple[int, bool], int] = {}

    def run(self, prompt_length: int, tokens: int) -> int:
        """Of a whole run."""
        state = _State(prompt_length, prompt_length + tokens - 1)
        total = self._prologue(state)
        for item in self._before:
            if isinstance(item, _Block):
                total += self._prefill(item, state)
        for position in range(state.position, state.steps):
            total += self._step(position, position < prompt_length)
        return total + self._end(state.steps)

    def alone(self, position: int) -> int:
        """Of a program that takes one step, at a position behind the prompt, and ends with its output head."""
        return self._prologue(_State(1, 1)) + self._step(position) + self._end(position, False)

    def _prologue(self, state: _State) -> int:
        return sum(
            self._count((item,), state, []) for item in self._before if not isinstance(item, _Block)
        )

    def _end(self, position: int, head: bool = True) -> int:
        """Of the last round, which finds END, with or without the output head; HALT."""
        state = _State(position if head else position + 1, position, position)
        return self._count(self._token, state, [position]) + stored_bytes(self.unit, Opcode.HALT)

    def _step(self, position: int, prefill: bool = False) -> int:
        """Of a round that processes the token at a position, within the prompt or behind it."""
        if (position, prefill) not in self._steps:
            state = _State(position + prefill, position + 1, position)
            self._steps[position, prefill] = self._count(self._token, state, [position])
        return self._steps[position, prefill]

    def _prefill(self, chunks: _Block, state: _State) -> int:
        total = 0
        for index in range(state.count(chunks.fields, "count", [])):
            left = state.prompt_length - state.position
            key = state.position, min(left, 1 << chunks.fields["count_shift"])
            begin = state.position
            if key not in self._chunks:
                self._chunks[key] = self._count(chunks.body, state, [index])
            state.position = begin + key[1]
            total += self._chunks[key]
        return total

    def _count(self, items: Sequence[_Item], state: _State, indices: list[int]) -> int:
        """Of a body, all of whose loops stand at their first index but those around it."""
        total = 0
        for item in items:
            if isinstance(item, _Block):
                if item.loop:
                    total += self._rounds(item, state, indices)
                elif not state.holds(item.fields["condition"]):
                    total += self._count(item.body, state, indices)
                elif item.fields["close"]:
                    return total
                continue
            opcode = item["opcode"]
            if opcode == Opcode.SKIP:
                state.skip(item, indices)
                continue
            if opcode == Opcode.INCREMENT:
                state.move(item, indices)
            if opcode != Opcode.INCREMENT or self.unit in _COUNTED:
                total += stored_bytes(self.unit, opcode)
        return total

    def _rounds(self, loop: _Block, state: _State, indices: list[int]) -> int:
        rounds = state.count(loop.fields, "count", indices)
        total = 0
        for index in range(rounds):
            begin = state.position, state.skipped
            found = self._count(loop.body, state, [*indices, index])
            total += found
            if (state.position, state.skipped) == begin and not loop.depends(len(indices)):
                return total + found * (rounds - 1 - index)
        return total
