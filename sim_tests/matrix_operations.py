"""Instructions of the matrix engine for its bench: any legal ones, and each way to be illegal."""

import random

from hw.spec.instructions import Unit, operation_fields
from hw.spec.machine import MachineSpec
from hw.spec.weight_format import KEPT, WIRES, StepFormat, WeightFormat

FIELDS = operation_fields(Unit.MPE)
MOST_VECTORS = 5


def operation(step: StepFormat | None = None, **values: int) -> dict[str, int]:
    """An instruction of one dense INT8 block and one vector, unless said otherwise."""
    step = step or StepFormat(WeightFormat.INT8)
    fields = {name: 0 for name, _ in FIELDS}
    fields |= {"format": step.weight, "kept": KEPT.index(step.kept), "bitmap": int(step.bitmap)}
    fields |= {"first": 1, "last": 1, "pop": 1, "blocks": 1, "steps": 1, "vectors": 1}
    return fields | values


def wired_operation(spec: MachineSpec, number: int, **values: int) -> dict[str, int]:
    """A product with all of a hardwired matrix, unless said otherwise."""
    outputs = spec.wired_matrices[number - 1].outputs
    own = {"format": WIRES, "pop": 0, "steps": number, "blocks": outputs // spec.matrix_rows}
    return operation() | own | values


def random_program(rng: random.Random, spec: MachineSpec, length: int) -> list[dict[str, int]]:
    """Any legal instructions; those before them left only the accumulators of one vector."""
    program: list[dict[str, int]] = []
    accumulated = 1
    for _ in range(length):
        fields = random_operation(rng, spec, accumulated)
        if not fields["sync"]:
            accumulated = (fields["vectors"] - 1) % spec.matrix_columns + 1
        program.append(fields)
    return program


def random_operation(rng: random.Random, spec: MachineSpec, accumulated: int) -> dict[str, int]:
    """Any legal instruction behind one whose last pass had `accumulated` vectors."""
    if rng.random() < 0.1:
        return {name: rng.getrandbits(width) for name, width in FIELDS} | {"sync": 1}
    if spec.wired_matrices and rng.random() < 0.3:
        return random_wired(rng, spec)
    step = rng.choice(spec.step_formats)
    first, last, scaled = rng.getrandbits(1), rng.getrandbits(1), rng.getrandbits(1)
    # Often the shortest group that the scalers allow.
    shortest = -(-spec.rows_per_scaler // step.cycles)
    group_steps = shortest + rng.choice([0, 0, 0, 1, 2, 7])
    unit = step.alignment // 4
    alone = not (first and last)
    most = accumulated if not first else MOST_VECTORS if last else spec.matrix_columns
    return operation(
        step,
        scaled=scaled,
        first=first,
        last=last,
        pop=rng.getrandbits(1),
        group_steps=group_steps if scaled else rng.getrandbits(12),
        steps=group_steps * rng.choice([1, 2, 3, 7]) if scaled else rng.randint(1, 30),
        blocks=1 if alone else rng.randint(1, 4),
        vectors=rng.randint(1, most),
        activation=rng.randrange(0, 1 << 16, unit),
        activation_pitch=rng.randrange(0, 1 << 16, unit),
        result=rng.choice([rng.getrandbits(16), spec.result_rows - 1]),
        result_pitch=rng.choice([0, 1, spec.block_rows, rng.getrandbits(16)]),
        scale=rng.getrandbits(16),
        scale_pitch=rng.choice([0, 1, rng.getrandbits(16)]),
    )


def random_wired(rng: random.Random, spec: MachineSpec) -> dict[str, int]:
    """Any legal product with a hardwired matrix."""
    unit = spec.activation_row_bytes // 4
    return wired_operation(
        spec,
        rng.randint(1, len(spec.wired_matrices)),
        activation=rng.randrange(0, 1 << 16, unit),
        activation_pitch=rng.randrange(0, 1 << 16, unit),
        group_steps=rng.getrandbits(12),
        result=rng.choice([rng.getrandbits(16), spec.result_rows - 1]),
        result_pitch=rng.getrandbits(16),
        scale=rng.getrandbits(16),
        scale_pitch=rng.getrandbits(16),
    )


def narrow_step(spec: MachineSpec) -> StepFormat:
    """The first dense format of the machine that takes eight weights a step."""
    return next(step for step in spec.step_formats if step.weight.step_weights == 8)


def illegal_operations(spec: MachineSpec) -> dict[str, dict[str, int]]:
    """Instructions that a machine refuses, by what is wrong with them."""
    turns, columns = spec.rows_per_scaler, spec.matrix_columns
    narrow = narrow_step(spec)
    found = {
        "no block": operation(blocks=0),
        "no step": operation(steps=0),
        "no vector": operation(vectors=0),
        "blocks without first": operation(blocks=2, first=0),
        "blocks without last": operation(blocks=2, last=0),
        "passes without first": operation(vectors=columns + 1, first=0),
        "passes without last": operation(vectors=columns + 1, last=0),
        "no group": operation(scaled=1, group_steps=0),
        "group too long": operation(scaled=1, steps=2 * turns, group_steps=2 * turns + 1),
        "group does not divide": operation(
            scaled=1, blocks=3, vectors=2, steps=44 * turns + 1, group_steps=2 * turns
        ),
        "odd activation": operation(narrow, activation=1),
        "odd pitch": operation(narrow, activation_pitch=3),
        "format beyond the last": operation(format=6),
        "bitmap of wide weights": operation(kept=1, bitmap=1),
        "bitmap of dense weights": operation(narrow, bitmap=1),
        "bitmap of 4 in 16": operation(narrow, kept=2, bitmap=1),
    }
    for weight in WeightFormat:
        if weight.name not in spec.weight_formats:
            found[f"no {weight.name}"] = operation(StepFormat(weight))
    found |= illegal_wired(spec)
    if turns > 1:
        found["group too short"] = operation(scaled=1, steps=turns, group_steps=turns - 1)
    for step in (StepFormat(WeightFormat.INT8, 8), StepFormat(WeightFormat.INT4, 2)):
        if not spec.sparse:
            found[f"no sparsity {step.kept}"] = operation(step)
            continue
        short = step.alignment // 8
        found[f"sparse activation {step.kept}"] = operation(step, activation=short)
        found[f"sparse pitch {step.kept}"] = operation(step, activation_pitch=short)
    return found


def illegal_wired(spec: MachineSpec) -> dict[str, dict[str, int]]:
    """Products with hardwired matrices that a machine refuses."""
    if not spec.wired_matrices:
        return {"no hardwired matrix": operation(format=WIRES, pop=0)}
    wrong = {
        "number": {"steps": len(spec.wired_matrices) + 1},
        "number 0": {"steps": 0},
        "blocks": {"blocks": spec.wired_matrices[1].outputs // spec.matrix_rows - 1},
        "kept": {"kept": 1},
        "bitmap": {"bitmap": 1},
        "scaled": {"scaled": 1, "group_steps": 1},
        "first": {"first": 0},
        "last": {"last": 0},
        "pop": {"pop": 1},
        "vectors": {"vectors": 2},
        "no vector": {"vectors": 0},
        "activation": {"activation": spec.activation_row_bytes // 8},
        "pitch": {"activation_pitch": spec.activation_row_bytes // 8},
    }
    return {f"wires: {name}": wired_operation(spec, 2, **fields) for name, fields in wrong.items()}
