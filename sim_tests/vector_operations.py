"""Random SFU operations and buffer contents, legal by construction or by the golden model's word."""

import dataclasses
import itertools
import random
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from emulator.errors import IllegalInstruction
from emulator.numerics.floating import canonical
from emulator.state import MachineState
from emulator.units.vector_check import check_fields, check_order
from hw.spec.functions import Function
from hw.spec.instructions import Reduce, Source, Target, Unit, operation_fields
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import load_machine

__all__ = [
    "Operation",
    "bench_machine",
    "can_exchange",
    "combinations",
    "fill",
    "random_operation",
    "random_patterns",
]

Operation = dict[str, int]

#: Zeros, ones, the ends of the range, what must be read as something else, and ties of INT8.
SPECIAL = [
    *(0x00000000, 0x80000000, 0x3F800000, 0xBF800000, 0x00800000, 0x807FFFFF, 0x00000001),
    *(
        0x7F7FFFFF,
        0xFF7FFFFF,
        0x7F800000,
        0xFFC00000,
        0x42FE0000,
        0xC2FF0000,
        0x3F000000,
        0xC0200000,
    ),
]


def bench_machine(target: str) -> MachineSpec:
    """The shape of a bundled target with shallow buffers, which build fast and wrap often.

    `narrow` is `small` with a quarter of the lanes that a word has.
    """
    spec = load_machine("small" if target == "narrow" else target)
    if target == "narrow":
        spec = dataclasses.replace(spec, vector_lanes=2, drain_lanes=2)
    return dataclasses.replace(
        spec,
        input_words=64,
        vector_rows=64,
        result_rows=32,
        activation_rows=64,
        store_rows=16,
        scalars=32,
        matrix_scales=16,
        memory=dataclasses.replace(spec.memory, words=16),
    )


def random_patterns(rng: np.random.Generator, count: int) -> npt.NDArray[np.float32]:
    """FP32 patterns: mostly ordinary numbers, some of wide range, equal, next to a tie, special, or of any bits."""
    ordinary = rng.normal(0, 3, count)
    wide = rng.normal(0, 1, count) * 2.0 ** rng.integers(-40, 40, count)
    equal = rng.integers(-3, 4, count) / 2
    near = rng.integers(-255, 256, count).astype(np.float32) / 2
    near = np.nextafter(near, np.float32(300) * rng.choice([-1, 1], count).astype(np.float32))
    kinds = [ordinary, wide, equal, near]
    bits = [np.asarray(kind, np.float32).view(np.uint32) for kind in kinds]
    bits.append(rng.choice(np.array(SPECIAL, np.uint32), count))
    bits.append(rng.integers(0, 1 << 32, count, np.uint32))
    choice = rng.choice(len(bits), count, p=[0.45, 0.15, 0.12, 0.1, 0.1, 0.08])
    return np.choose(choice, bits).astype(np.uint32).view(np.float32)


def fill(state: MachineState, rng: np.random.Generator) -> None:
    """Give every buffer that the unit reads new contents; only memory's may have patterns that are not canonical."""
    state.input[...] = random_patterns(rng, state.input.size).reshape(state.input.shape)
    for buffer in (state.vector, state.result, state.scalars):
        buffer[...] = canonical(random_patterns(rng, buffer.size)).reshape(buffer.shape)


def combinations(rng: random.Random) -> Iterator[Operation]:
    """Fields without end: all legal function, reduction and target, and all sources, before any repeats."""
    actions = [
        {"function": function.value, "reduce": reduce.value, "target": target.value}
        for function, reduce, target in itertools.product(Function, Reduce, Target)
        if target != Target.SCALAR or reduce in (Reduce.NONE, Reduce.ARGMAX)
    ]
    sources = [
        {"a_source": a.value, "b_source": b.value, "c_source": c.value}
        for a, b, c in itertools.product(Source, repeat=3)
        if a not in (Source.NONE, Source.CONSTANT)
    ]
    rng.shuffle(actions)
    rng.shuffle(sources)
    for action, source in zip(itertools.cycle(actions), itertools.cycle(sources), strict=False):
        yield action | source


def can_exchange(operation: Operation) -> bool:
    """Whether reductions, or else elements, may pass between cores."""
    if operation["reduce"] == Reduce.NONE:
        return operation["target"] in (Target.VECTOR, Target.ACTIVATION)
    return operation["reduce"] != Reduce.ARGMAX


def random_operation(rng: random.Random, spec: MachineSpec, fixed: Operation) -> Operation:
    """A legal operation with `fixed` fields, all others random.

    Raises
    ------
    ValueError
        If none was found in many attempts.
    """
    for _ in range(200):
        operation = {name: rng.getrandbits(width) for name, width in operation_fields(Unit.SFU)}
        operation["sync"] = 0
        _choose_shape(rng, spec, operation)
        for name in ("b_constant", "c_constant"):
            pattern = random_patterns(np.random.default_rng(rng.getrandbits(32)), 1)
            operation[name] = int(pattern.view(np.uint32)[0])
        operation |= fixed
        operation["exchange"] = fixed.get("exchange", int(rng.random() < 0.4))
        if not can_exchange(operation):
            operation["exchange"] = 0
        if operation["exchange"]:
            operation["exchange_pitch"] = rng.randrange(spec.vector_rows)
        if operation["reduce"] == Reduce.ARGMAX:
            operation["rows"] = 1
        if fixed["target"] == Target.VECTOR and rng.random() < 0.5:
            # In place: D is one of the operands.
            for name in ("a", "b", "c"):
                if operation[f"{name}_source"] == Source.VECTOR:
                    operation["d"] = operation[name]
                    operation["d_pitch"] = operation[f"{name}_pitch"]
        try:
            check_fields(operation)
            check_order(spec, operation)
        except IllegalInstruction:
            continue
        return operation
    raise ValueError(f"no legal operation found for {fixed}")


def _choose_shape(rng: random.Random, spec: MachineSpec, operation: Operation) -> None:
    """Small rows, lengths about a few granules, pitches about a row; now and then extremes."""
    shape = rng.random()
    operation["rows"] = rng.choice([1, 1, 2, 3, 4, 5])
    operation["length"] = rng.randint(1, 3 * spec.granule)
    if shape < 0.15:
        operation["length"] = rng.randint(1, spec.granule)
    elif shape < 0.25:
        operation["length"] = spec.granule * rng.randint(1, 3)
    elif shape < 0.3:
        operation["rows"] = rng.randint(20, 60)
        operation["length"] = rng.randint(1, spec.granule)
    elif shape < 0.35:
        operation["rows"], operation["length"] = 1, rng.randint(1, 60 * spec.lanes)
    beats = -(-operation["length"] // spec.lanes)
    for name in ("a", "b", "c", "d"):
        # Any pitch, of 16 bits, now and then.
        if rng.random() < 0.9:
            operation[f"{name}_pitch"] = rng.choice([
                0,
                1,
                beats,
                beats,
                rng.randint(0, 2 * beats + 8),
            ])
