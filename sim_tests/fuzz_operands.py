"""Random legal operands of unit instructions, and the rows that they touch."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from emulator.accesses import accesses, depths
from emulator.errors import IllegalInstruction
from emulator.state import MachineState
from emulator.units import matrix, store
from emulator.units.matrix_check import step_format
from emulator.units.vector_check import check_fields, check_order
from hw.spec.functions import Function
from hw.spec.instructions import (
    EXECUTE,
    Destination,
    Opcode,
    Pattern,
    Reduce,
    Register,
    Source,
    Target,
    Unit,
)
from hw.spec.machine import MachineSpec
from sim_tests.fuzz_fields import (
    MEMORY_REGIONS,
    Environment,
    Fields,
    address_fields,
    buffer_fields,
    count_fields,
    exact_count,
)
from sim_tests.fuzz_schedule import Step
from sim_tests.instruction_text import evaluate_operation
from sim_tests.vector_operations import can_exchange


class NoLegalOperands(Exception):
    """Random operands were illegal time and again: what was written before leaves too little room for this step."""


@dataclass
class Toucher:
    """Turns fields into steps with the rows that they touch, over all cases.

    Parameters
    ----------
    spec : MachineSpec
    """

    spec: MachineSpec
    depth: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.depth = depths(self.spec)

    def step(
        self,
        unit: Unit,
        fields: Fields,
        environment: Environment,
        check: Callable[[Mapping[str, int]], None] | None = None,
    ) -> Step:
        """An EXECUTE.

        Raises
        ------
        IllegalInstruction
            If `check` says so of any case, or it touches more rows than there are.
        """
        full = {f.name: 0 for f in EXECUTE[unit]} | fields
        step = Step(unit, Opcode.EXECUTE, fields)
        nothing = SimpleNamespace(
            spec=self.spec, stream_write=0, stream_read=0, scale_write=0, scale_read=0
        )
        for case in environment.cases():
            operation = evaluate_operation(unit, full, *case)
            if check is not None:
                check(operation)
            reads, writes = accesses(unit, operation, cast(MachineState, nothing))
            for ranges, masks in ((reads, step.reads), (writes, step.writes)):
                for name, first, count in ranges:
                    if name not in ("stream", "scale_ring"):
                        masks[name] = masks.get(name, 0) | self.mask(name, first, count)
        if unit in (Unit.LD, Unit.ST) and fields.get("address_register") == Register.TOKEN:
            step.reads["memory"] = (1 << self.depth["memory"]) - 1
            step.reads["token"] = 1
        if unit == Unit.SYS:
            step.writes["token"] = 1
        return step

    def mask(self, name: str, first: int, count: int) -> int:
        """Bits of a range of rows, which may wrap."""
        depth = self.depth[name]
        if count > depth:
            raise IllegalInstruction(f"{name}: {count} rows in a buffer of {depth}")
        bits = ((1 << count) - 1) << first % depth
        return (bits | bits >> depth) & ((1 << depth) - 1)


class OperandMaker:
    """Random unit instructions for one machine.

    Parameters
    ----------
    rng : random.Random
    spec : MachineSpec
    """

    def __init__(self, rng: random.Random, spec: MachineSpec) -> None:
        self.rng = rng
        self.spec = spec
        self.toucher = Toucher(spec)

    def _attempt(self, make: Callable[[], Step]) -> Step:
        for _ in range(200):
            try:
                return make()
            except IllegalInstruction:
                continue
        raise NoLegalOperands("no legal operands found in 200 attempts")

    def load_input(self, environment: Environment, token: bool) -> Step:
        """LD to the input buffer; with `token`, from an address that depends on TOKEN."""
        rng, spec = self.rng, self.spec

        def make() -> Step:
            longest = rng.choice([2, 8, spec.input_words // 2])
            fields = {"destination": int(Destination.INPUT), "random": int(rng.random() < 0.2)}
            fields |= count_fields(rng, "length", 1, longest, environment)
            fields |= address_fields(
                rng, spec, (0, 0, 0, rng.randrange(MEMORY_REGIONS)), environment
            )
            fields |= buffer_fields(rng, "buffer", spec.input_words)
            if token:
                # Bursts must not depend on the token: it moves the address by whole bursts.
                fields |= {"address_register": int(Register.TOKEN), "random": 1}
                fields["address_factor"] = spec.burst_beats * rng.randint(0, 3)
            return self.toucher.step(Unit.LD, fields, environment)

        return self._attempt(make)

    def load_ring(self, environment: Environment, destination: Destination, count: Fields) -> Step:
        """LD to a ring; `count` is its length operand."""
        rng = self.rng

        def make() -> Step:
            fields = {"destination": int(destination), "random": int(rng.random() < 0.1)}
            regions = (0, 1, 1, rng.randrange(MEMORY_REGIONS))
            fields |= address_fields(rng, self.spec, regions, environment) | count
            fields |= buffer_fields(rng, "buffer", self.spec.input_words)
            return self.toucher.step(Unit.LD, fields, environment)

        return self._attempt(make)

    def store(self, environment: Environment) -> Step:
        """ST of any pattern."""
        rng, spec = self.rng, self.spec

        def make() -> Step:
            pattern = rng.choice(list(Pattern))
            fields = {
                "pattern": int(pattern),
                "rows": rng.choice([1, 1, 2, 3, 6]),
                "pitch": rng.choice([0, 1, 2, spec.burst_beats, rng.randrange(50), (1 << 24) - 3]),
                "steps": rng.choice([1, 2, 3, spec.burst_beats])
                if pattern == Pattern.COLUMN
                else 1,
                "source_pitch": rng.choice([0, 1, 2, rng.randrange(16), 0xFFFF]),
            }
            fields |= address_fields(rng, spec, (2, 3), environment)
            fields |= buffer_fields(rng, "source", spec.store_rows * spec.matrix_rows // 4)
            return self.toucher.step(
                Unit.ST, fields, environment, lambda o: store.check_operation(spec, o)
            )

        return self._attempt(make)

    def matrix(self, environment: Environment, fields: Fields) -> Step:
        """MPE with given counts, kind and chain bits; activations, results and scale anywhere."""
        rng, spec = self.rng, self.spec

        def make() -> Step:
            every = dict(fields)
            units = spec.activation_rows * spec.lanes // 4
            align = step_format(fields).alignment // 4
            every |= buffer_fields(rng, "activation", units, 2, align=align)
            every["activation_pitch"] = rng.choice([0, align, 4 * align, rng.randrange(64)])
            every["activation_pitch"] -= every["activation_pitch"] % align
            every |= buffer_fields(rng, "result", spec.result_rows, 2)
            every["result_pitch"] = rng.choice([0, 1, 4, 4, rng.randrange(16), 0xFFFF])
            every |= buffer_fields(rng, "scale", spec.matrix_scales)
            every["scale_pitch"] = rng.choice([0, 1, 1, rng.randrange(8), 0xFFFF])
            return self.toucher.step(
                Unit.MPE, every, environment, lambda o: matrix.check_operation(spec, o)
            )

        return self._attempt(make)

    def vector(self, environment: Environment, kind: Mapping[str, int]) -> Step:
        """SFU; `kind` may fix function, reduction, target and sources."""
        rng, spec = self.rng, self.spec

        def make() -> Step:
            fields = self._vector_kind() | dict(kind)
            one = fields["reduce"] == Reduce.ARGMAX
            most = 1 if one else rng.choice([1, 1, 2, 3])
            longest = rng.choice([spec.granule, 2 * spec.granule, 3 * spec.granule])
            beats = -(-longest // spec.granule) * spec.granule // spec.lanes
            fields |= count_fields(rng, "rows", 1, most, environment)
            fields |= {"restart": int(rng.random() < 0.3), "causal": int(rng.random() < 0.3)}
            exchanged = fields.pop("exchange", rng.random() < (0.5 if spec.cores == 1 else 0.7))
            if exchanged and can_exchange(fields):
                fields |= {
                    "exchange": 1,
                    "exchange_pitch": rng.choice([0, beats, rng.randrange(32)]),
                }
            fields |= count_fields(rng, "length", 1, longest, environment)
            depths_of = {Source.INPUT: spec.input_words, Source.VECTOR: spec.vector_rows}
            depths_of |= {Source.RESULT: spec.result_rows, Source.SCALAR: spec.scalars}
            for name in ("a", "b", "c"):
                depth = depths_of.get(Source(fields[f"{name}_source"]), 16)
                fields |= buffer_fields(rng, name, depth)
                fields[f"{name}_pitch"] = rng.choice([
                    0,
                    1,
                    beats,
                    beats,
                    rng.randrange(12),
                    0xFFFF,
                ])
            for name in ("b", "c"):
                if fields[f"{name}_source"] == Source.CONSTANT:
                    fields[f"{name}_constant"] = self._constant()
            fields |= buffer_fields(rng, "d", self._target_depth(fields["target"]))
            fields["d_pitch"] = rng.choice([1, beats, beats, rng.randrange(12)])
            fields["reduce_entry"] = rng.randrange(2 * spec.scalars)
            if (
                fields["target"] == Target.VECTOR
                and fields["a_source"] == Source.VECTOR
                and rng.random() < 0.6
            ):
                fields |= {
                    f"d_{part}": fields[f"a_{part}"]
                    for part in ("base", "level0", "stride0", "pitch")
                }
            return self.toucher.step(Unit.SFU, fields, environment, self._check_vector)

        return self._attempt(make)

    def long_vector(self, environment: Environment) -> Step:
        """SFU with many rows, or rows of many elements: no more than reductions is written, so that it fits."""
        rng, spec = self.rng, self.spec
        # Each instruction ends before the watchdog takes it for a deadlock.
        beats = spec.watchdog_cycles // 2
        row_beats = -(-spec.granule // spec.lanes)
        few, many = [1, 2, 2, 2, 3], max(4, beats // row_beats)
        rows = rng.choice([*few, *(rng.randrange(1, many) for _ in few)])
        reduces = [Reduce.MAXIMUM, Reduce.SUM, Reduce.SUM] if rows in few else [Reduce.NONE]
        length = rng.randint(1, max(1, beats // rows * spec.lanes - spec.granule))

        def make() -> Step:
            fields = self._vector_kind()
            fields |= {"reduce": int(rng.choice(reduces)), "target": int(Target.NONE)}
            fields["reduce_entry"] = rng.randrange(spec.scalars)
            for name in ("a", "b", "c"):
                constant = name != "a" and rng.random() < 0.5
                fields[f"{name}_source"] = int(Source.CONSTANT if constant else Source.SCALAR)
                fields |= buffer_fields(rng, name, spec.scalars)
                if constant:
                    fields[f"{name}_constant"] = self._constant()
            fields |= exact_count(rng, "rows", rows, environment)
            fields |= exact_count(rng, "length", length, environment)
            fields["causal"] = int(rng.random() < 0.5 and rows in few)
            return self.toucher.step(Unit.SFU, fields, environment, self._check_vector)

        return self._attempt(make)

    def _check_vector(self, operation: Mapping[str, int]) -> None:
        check_fields(operation)
        check_order(self.spec, operation)

    def _vector_kind(self) -> Fields:
        rng = self.rng
        target = rng.choice(list(Target))
        reduces = [Reduce.NONE, Reduce.ARGMAX] if target == Target.SCALAR else list(Reduce)
        sources = [Source.INPUT, Source.VECTOR, Source.RESULT, Source.SCALAR]
        return {
            "function": rng.choice(list(Function)).value,
            "reduce": int(rng.choice(reduces)),
            "target": int(target),
            "a_source": int(rng.choice(sources)),
            "b_source": int(rng.choice(list(Source))),
            "c_source": int(rng.choice(list(Source))),
        }

    def _target_depth(self, target: int) -> int:
        spec = self.spec
        return {
            Target.VECTOR: spec.vector_rows,
            Target.SCALAR: spec.scalars,
            Target.ACTIVATION: spec.activation_rows,
            Target.STORE_INTEGER: spec.store_rows * spec.matrix_rows // spec.lanes,
            Target.STORE_FLOAT: spec.store_rows * spec.matrix_rows // 4,
            Target.MATRIX_SCALE: spec.matrix_scales,
        }.get(Target(target), 64)

    def _constant(self) -> int:
        rng = self.rng
        value = np.float32(rng.choice([1.0, -0.5, 2.0, 64.0, rng.uniform(-4, 4)]))
        return rng.choice([int(value.view(np.uint32)), rng.getrandbits(32)])


def image(rng: random.Random, spec: MachineSpec) -> Any:
    """Initial memory of all cores: uint8 [words, word_bytes], or [cores, words, word_bytes]."""
    images = [_core_image(rng, spec) for _ in range(spec.cores)]
    return images[0] if spec.cores == 1 else np.stack(images)


def _core_image(rng: random.Random, spec: MachineSpec) -> np.ndarray:
    """Floats, then any bits (`MEMORY_REGIONS`)."""
    generator = np.random.default_rng(rng.getrandbits(64))
    size = spec.memory.words // MEMORY_REGIONS
    from sim_tests.vector_operations import random_patterns

    floats = random_patterns(generator, size * spec.word_bytes // 4).view(np.uint8)
    bits = generator.integers(0, 256, size * spec.word_bytes, np.uint8)
    # Sums of few and small terms, whose last bits are seen.
    for _ in range(rng.choice([0, 0, 1, 2, 3])):
        bits &= generator.integers(0, 256, size * spec.word_bytes, np.uint8)
    return np.concatenate([floats, bits]).reshape(2 * size, spec.word_bytes)
