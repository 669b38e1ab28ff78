"""Random programs for one sequencer, and what `docs/isa.md` says of them; plain Python integers.

The operands are evaluated from their formulas, one instruction after the other, so this shares nothing
with the hardware but the table of fields.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from hw.spec.instructions import (
    COUNT_BITS,
    EXECUTE,
    LOOP_DEPTH,
    Condition,
    Opcode,
    Register,
    Unit,
    decode,
    encode,
    operation_fields,
)


@dataclass
class Context:
    """Registers that a program sees."""

    prompt_length: int
    steps: int
    end: int


@dataclass
class State:
    """Sequencer state between instructions."""

    pc: int = 0
    position: int = 0
    skipped: int = 0
    index: list[int] = field(default_factory=lambda: [0] * LOOP_DEPTH)
    rounds: list[int] = field(default_factory=list)


def random_program(unit: Unit, rng: random.Random, length: int = 30) -> list[int]:
    """A program that ends: loops of few rounds, forward branches, ways out of loops, operations, HALT."""
    words: list[int] = []
    exits: list[tuple[int, int]] = []
    _block(unit, rng, words, 0, length, exits)
    for at, close in exits:
        words[at] = encode(unit, Opcode.BRANCH, close=close, target=len(words))
    # It shows that no index is left of loops that were left.
    return [*words, _random_operation(unit, rng), encode(unit, Opcode.HALT)]


def _block(
    unit: Unit,
    rng: random.Random,
    words: list[int],
    depth: int,
    length: int,
    exits: list[tuple[int, int]],
) -> None:
    """Append instructions inside of `depth` loops; `exits` are branches to the end, and the loops they close."""
    for _ in range(rng.randint(2, 5) if depth else length // 4):
        kind = rng.choices(
            ["operation", "sync", "increment", "skip", "loop", "branch"], [6, 2, 1, 1, 2, 1]
        )[0]
        if kind == "loop" and depth < LOOP_DEPTH:
            head = len(words)
            words.append(0)
            _block(unit, rng, words, depth + 1, length, exits)
            way_out = rng.random()
            if way_out < 0.2:
                # Taken in the first round or never.
                condition = rng.choice([Condition.PREFILL, Condition.END])
                behind = len(words) + 2
                words.append(
                    encode(unit, Opcode.BRANCH, condition=condition, close=1, target=behind)
                )
            elif way_out < 0.5:
                # Taken when the position is behind the prompt, which may be in a later round.
                over = len(words) + 3
                words.append(
                    encode(unit, Opcode.INCREMENT, count_cap=1, count_offset=1, count_scale=1)
                )
                words.append(encode(unit, Opcode.BRANCH, condition=Condition.PREFILL, target=over))
                words.append(encode(unit, Opcode.BRANCH, close=1, target=over + 1))
                if rng.random() < 0.2:
                    exits.append((over - 1, depth + 1))
            words.append(encode(unit, Opcode.END_LOOP, target=head + 1))
            words[head] = encode(unit, Opcode.LOOP, target=len(words), **_loop_count(rng))
        elif kind == "branch":
            head = len(words)
            words.append(0)
            words.append(_random_operation(unit, rng))
            condition = rng.choice(list(Condition))
            words[head] = encode(unit, Opcode.BRANCH, condition=condition, target=len(words))
        elif kind == "increment":
            backward = int(rng.random() < 0.3)
            words.append(encode(unit, Opcode.INCREMENT, backward=backward, **_loop_count(rng)))
        elif kind == "skip":
            values = _loop_count(rng) | {"count_cap": rng.choice([3, 30, (1 << COUNT_BITS) - 1])}
            less = rng.choice([0, 0, 1, rng.randint(2, 20), rng.getrandbits(COUNT_BITS)])
            words.append(encode(unit, Opcode.SKIP, less=less, **values))
        elif kind == "sync":
            words.append(encode(unit, Opcode.SYNC, wait=_mask(rng), signal=rng.getrandbits(5)))
        else:
            words.append(_random_operation(unit, rng))


def _mask(rng: random.Random) -> int:
    return rng.getrandbits(5) & rng.getrandbits(5)


def _loop_count(rng: random.Random) -> dict[str, int]:
    register = rng.choice([
        Register.ZERO,
        Register.POSITION,
        Register.PROMPT_LENGTH,
        Register.STEPS,
        Register.SKIPPED,
        Register.REST,
    ])
    values = {
        "cap": rng.choice([0, 1, 2, 2, 3, 3]),
        "register": register,
        "offset": rng.randint(0, 20),
        "shift": rng.randint(0, 3),
    }
    values |= {
        "scale": rng.choice([0, 1, 1, 2, 3]),
        "level": rng.randrange(4),
        "step": rng.randint(0, 2),
    }
    return {f"count_{name}": int(value) for name, value in values.items()}


def _random_operation(unit: Unit, rng: random.Random) -> int:
    values: dict[str, int] = {"wait": _mask(rng), "signal": rng.getrandbits(5)}
    for item in EXECUTE[unit]:
        value = rng.getrandbits(item.width)
        if item.name.endswith("_register"):
            value = rng.choice(list(Register))
        elif rng.random() < 0.3:
            value = rng.choice([0, 1, (1 << item.width) - 1])
        values[item.name] = int(value)
    return encode(unit, Opcode.EXECUTE, **values)


def count(
    values: dict[str, int], name: str, register: Callable[[int], int], index: list[int]
) -> int:
    """min(cap, max(0, ((register + offset) >> shift) * scale - index[level] * step))."""
    part = {
        key: values[f"{name}_{key}"]
        for key in ("cap", "register", "offset", "shift", "scale", "level", "step")
    }
    total = (register(part["register"]) + part["offset"] >> part["shift"]) * part["scale"]
    return min(part["cap"], max(0, total - index[part["level"]] * part["step"]))


def operation(
    unit: Unit, word: int, register: Callable[[int], int], index: list[int], position: int
) -> dict[str, int]:
    """Fields that the unit is to receive; a SYNC has only `sync`."""
    values = decode(unit, word)
    if values["opcode"] == Opcode.SYNC:
        return {"sync": 1}
    result = {"sync": 0}
    for name, _ in operation_fields(unit):
        if f"{name}_cap" in values:
            result[name] = count(values, name, register, index)
        elif name == "address":
            source, shift = register(values["address_register"]), values["address_shift"]
            address = values["address_base"] + (source >> shift) * values["address_factor"]
            address += sum(i * values[f"address_stride{level}"] for level, i in enumerate(index))
            result |= {"address": address % 2**28, "lane": source % 2**shift}
        elif f"{name}_base" in values:
            address = values[f"{name}_base"]
            for term in range(2):
                if f"{name}_level{term}" in values:
                    address += index[values[f"{name}_level{term}"]] * values[f"{name}_stride{term}"]
            result[name] = address % 2**16
        elif name == "position":
            result[name] = position
        elif name in values:
            result[name] = values[name]
    names = {name for name, _ in operation_fields(unit)}
    return {name: value for name, value in result.items() if name in names}


def control(unit: Unit, word: int, state: State, context: Context) -> bool:
    """Execute a control instruction; False for HALT."""
    values = decode(unit, word)
    state.pc += 1

    def register(number: int) -> int:
        prompt_length = context.prompt_length
        values = [0, state.position, prompt_length, context.steps, 0]
        values += [state.skipped, max(0, state.position - state.skipped)]
        return values[number] % (1 << COUNT_BITS)

    match values["opcode"]:
        case Opcode.HALT:
            return False
        case Opcode.INCREMENT:
            step = count(values, "count", register, state.index)
            state.position += -step if values["backward"] else step
            state.position %= 1 << COUNT_BITS
        case Opcode.SKIP:
            made = count(values, "count", register, state.index)
            state.skipped = max(0, made - values["less"])
        case Opcode.LOOP:
            rounds = count(values, "count", register, state.index)
            if rounds:
                state.rounds.append(rounds)
            else:
                state.pc = values["target"]
        case Opcode.END_LOOP:
            level = len(state.rounds) - 1
            if state.index[level] + 1 < state.rounds[level]:
                state.index[level] += 1
                state.pc = values["target"]
            else:
                state.rounds.pop()
                state.index[level] = 0
        case Opcode.BRANCH:
            prefill = state.position < context.prompt_length
            rest = state.position > state.skipped
            if [True, prefill, context.end, rest][values["condition"]]:
                state.pc = values["target"]
                for _ in range(values["close"]):
                    state.rounds.pop()
                    state.index[len(state.rounds)] = 0
    return True
