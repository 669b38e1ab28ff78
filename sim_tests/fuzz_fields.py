"""Random fields of instructions, and the loop indices and registers with which these are executed."""

import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass

from hw.spec.instructions import (
    ADDRESS_BITS,
    BUFFER_BITS,
    EXTENT_BITS,
    FACTOR_BITS,
    LOOP_DEPTH,
    Register,
)
from hw.spec.machine import MachineSpec
from hw.spec.weight_format import KEPT, StepFormat
from sim_tests.instruction_text import evaluate_count

Fields = dict[str, int]
ATTEMPTS = 12
MEMORY_REGIONS = 4
"""The memory image has floats in its first region, any bits in the second, and stores go mostly to the rest."""


@dataclass(frozen=True)
class Environment:
    """Loop indices and registers with which an instruction may be executed.

    Attributes
    ----------
    trips : tuple of int
        Rounds of the loops that are open in its unit, outermost first.
    position_level : int or None
        Loop whose index is POSITION: the token loop.
    position : int or None
        POSITION where it does not change; None if it is not known.
    skipped : int
        SKIPPED.
    prompt_length, steps : int
    """

    trips: tuple[int, ...]
    position_level: int | None
    position: int | None
    skipped: int
    prompt_length: int
    steps: int

    def cases(self) -> list[tuple[list[int], dict[Register, int]]]:
        """Every combination of loop indices with the registers that go with it."""
        result = []
        for chosen in itertools.product(*(range(n) for n in self.trips)):
            indices = [*chosen, *(0,) * (LOOP_DEPTH - len(chosen))]
            position = (
                self.position if self.position_level is None else indices[self.position_level]
            )
            registers = {Register.PROMPT_LENGTH: self.prompt_length, Register.STEPS: self.steps}
            registers[Register.SKIPPED] = self.skipped
            if position is not None:
                registers[Register.POSITION] = position
                registers[Register.REST] = max(0, position - self.skipped)
            result.append((indices, registers))
        return result

    def registers(self) -> list[Register]:
        """Registers whose value is known beforehand."""
        known = [
            Register.ZERO,
            Register.PROMPT_LENGTH,
            Register.STEPS,
            Register.SKIPPED,
        ]
        if self.position is not None or self.position_level is not None:
            known += [Register.POSITION, Register.REST]
        return known


def count_fields(
    rng: random.Random, name: str, low: int, high: int, environment: Environment
) -> Fields:
    """A count operand whose value lies in low..high in all cases; mostly not the same in all."""
    cases = environment.cases()
    for _ in range(ATTEMPTS):
        value = rng.randint(low, high)
        fields = {
            f"{name}_cap": rng.choice([value, high, high, (1 << 20) - 1]),
            f"{name}_register": int(rng.choice(environment.registers())),
            f"{name}_offset": rng.choice([0, 1, value, value, 2 * value, rng.randint(0, 8 * high)]),
            f"{name}_shift": rng.choice([0, 0, 0, 1, 2, 3]),
            f"{name}_scale": rng.choice([1, 1, 1, 2, 3, 5]),
            f"{name}_level": rng.randrange(LOOP_DEPTH),
            f"{name}_step": rng.choice([0, 0, 1, 2, rng.randint(0, 6), rng.getrandbits(20)]),
        }
        if all(low <= evaluate_count(fields, name, *case) <= high for case in cases):
            return fields
    return exact_count(rng, name, rng.randint(low, high), environment)


def exact_count(rng: random.Random, name: str, value: int, environment: Environment) -> Fields:
    """A count operand that is `value` in all cases, by one of several ways."""
    fields = {
        f"{name}_cap": value,
        f"{name}_register": int(Register.ZERO),
        f"{name}_offset": value,
        f"{name}_shift": 0,
        f"{name}_scale": 1,
        f"{name}_level": rng.randrange(LOOP_DEPTH),
        f"{name}_step": 0,
    }
    for _ in range(3):
        other = dict(fields)
        shift = rng.choice([0, 0, 1, 3])
        other[f"{name}_register"] = int(rng.choice(environment.registers()))
        other[f"{name}_shift"] = shift
        # Beyond the cap any value is as good as another; that shows every bit of the sums and products, and single
        # bits show what is lost of them.
        other[f"{name}_offset"] = rng.choice([
            value << shift,
            rng.randint(0, 4 * value + 4),
            rng.getrandbits(20),
            1 << rng.randrange(EXTENT_BITS),
        ])
        other[f"{name}_scale"] = rng.choice([
            1,
            2,
            4,
            rng.getrandbits(16),
            1 << rng.randrange(FACTOR_BITS),
        ])
        other[f"{name}_step"] = rng.choice([
            0,
            1,
            3,
            rng.getrandbits(20),
            1 << rng.randrange(EXTENT_BITS),
        ])
        other[f"{name}_cap"] = rng.choice([value, value, (1 << 20) - 1])
        if rng.random() < 0.3:
            other |= _last_round_count(rng, name, value, environment)
        if all(evaluate_count(other, name, *case) == value for case in environment.cases()):
            return other
    return fields


def _last_round_count(
    rng: random.Random, name: str, value: int, environment: Environment
) -> Fields:
    """A count of which loops take so much that nothing but `value` is left in the last round; the cap hides it before."""
    if not environment.trips:
        return {}
    level = rng.randrange(len(environment.trips))
    rounds = environment.trips[level] - 1
    # A factor needs a charge that leaves a multiple of it.
    shift = rng.randrange(FACTOR_BITS // 2) if rounds % 2 else 0
    rest = -value * pow(rounds, -1, 1 << shift) % (1 << shift) if shift else 0
    most = min(
        (1 << EXTENT_BITS) - 1, (((1 << EXTENT_BITS) - 1 << shift) - value) // max(1, rounds)
    )
    step = (rng.randrange(most >> shift) << shift) + rest
    return {
        f"{name}_cap": value,
        f"{name}_register": int(Register.ZERO),
        f"{name}_offset": value + step * rounds >> shift,
        f"{name}_shift": 0,
        f"{name}_scale": 1 << shift,
        f"{name}_level": level,
        f"{name}_step": step,
    }


def scaled_count(name: str, other: str, fields: Mapping[str, int], factor: int) -> Fields:
    """The count operand `other` times a factor, in all cases."""
    result = {
        f"{name}_{part}": fields[f"{other}_{part}"]
        for part in ("register", "offset", "shift", "level")
    }
    for part in ("cap", "scale", "step"):
        result[f"{name}_{part}"] = fields[f"{other}_{part}"] * factor
    return result


def step_fields(step: StepFormat) -> Fields:
    """Fields of MPE that name a step format."""
    kept = KEPT.index(step.kept)
    return {"format": int(step.weight), "kept": kept, "bitmap": int(step.bitmap)}


def buffer_fields(
    rng: random.Random, name: str, depth: int, terms: int = 1, align: int = 1
) -> Fields:
    """A buffer address: any row, small or negative strides, rarely beyond the depth."""
    base = rng.randrange(depth) // align * align
    if rng.random() < 0.3:
        base = rng.randrange(1 << BUFFER_BITS) // align * align
    fields = {f"{name}_base": base}
    for term in range(terms):
        backwards = (1 << BUFFER_BITS) - rng.randint(1, 4)
        stride = rng.choice([
            0,
            1,
            1,
            2,
            4,
            rng.randrange(8),
            backwards,
            rng.getrandbits(BUFFER_BITS),
        ])
        fields[f"{name}_level{term}"] = rng.randrange(LOOP_DEPTH)
        fields[f"{name}_stride{term}"] = stride // align * align
    return fields


def address_fields(
    rng: random.Random, spec: MachineSpec, regions: tuple[int, ...], environment: Environment
) -> Fields:
    """A memory address in some of the memory's regions, moved by loops and a register."""
    size = spec.memory.words // MEMORY_REGIONS
    near = spec.burst_beats * rng.randint(0, size // spec.burst_beats - 1)
    base = rng.choice(regions) * size + rng.choice([
        near,
        near + spec.burst_beats - rng.randint(1, 3),
        rng.randrange(size),
    ])
    if rng.random() < 0.15:
        # Beyond the memory, which wraps: the same region, with any bits above.
        base += rng.getrandbits(ADDRESS_BITS) // spec.memory.words * spec.memory.words
        base %= 1 << ADDRESS_BITS
    fields = {
        "address_base": base,
        "address_register": int(rng.choice(environment.registers())),
        "address_shift": rng.choice([0, 0, 1, 2]),
        "address_factor": rng.choice([0, 1, 2, 5, 16, rng.randrange(64), rng.getrandbits(24)]),
    }
    for level in range(LOOP_DEPTH):
        backwards = (1 << ADDRESS_BITS) - rng.randint(1, 20)
        far = rng.getrandbits(
            ADDRESS_BITS
        ) // spec.memory.words * spec.memory.words + rng.randrange(8)
        stride = rng.choice([0, 1, 3, spec.burst_beats, rng.randrange(40), backwards, far])
        fields[f"address_stride{level}"] = stride
    return fields
