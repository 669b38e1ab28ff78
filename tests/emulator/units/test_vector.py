"""The vector unit's golden model: element by element against the manual, and what is refused."""

import copy
import dataclasses
import random
import struct
import zlib
from fractions import Fraction
from itertools import islice
from typing import Any

import numpy as np
import pytest

from emulator.errors import IllegalInstruction
from emulator.state import MachineState
from emulator.units import vector, vector_check
from hw.spec.floating import FP32
from hw.spec.functions import Function
from hw.spec.instructions import Reduce, Source, Target, Unit, operation_fields
from hw.spec.machine import MachineSpec
from sim_tests.vector_operations import bench_machine, combinations, fill, random_operation
from tests import float_oracle as oracle

SPECS = {name: bench_machine(name) for name in ("tiny", "small")}
# Four rows of the vector unit in a word of memory.
SPECS["narrow"] = dataclasses.replace(SPECS["small"], vector_lanes=2, drain_lanes=2)
WRITTEN = ("vector", "scalars", "activation", "store", "matrix_scales")


def operation(spec: MachineSpec, **values: int) -> dict[str, int]:
    """VECTOR row 0 = INPUT row 0, one granule, unless said otherwise."""
    fields = {name: 0 for name, _ in operation_fields(Unit.SFU)}
    fields |= {"rows": 1, "length": spec.granule, "a_source": 1, "target": 1}
    return fields | {name: int(value) for name, value in values.items()}


def as_number(bits: int) -> Fraction:
    """What a canonical FP32 pattern stands for."""
    return oracle.value(bits, FP32)


class Manual:
    """Executes operations one element at a time on bit patterns, as `docs/isa.md` words it."""

    def __init__(self, state: MachineState) -> None:
        self.spec = state.spec
        self.lanes = state.spec.lanes
        self.buffers: dict[int, list[int]] = {
            Source.INPUT: state.input.view(np.uint32).reshape(-1).tolist(),
            Source.VECTOR: state.vector.view(np.uint32).reshape(-1).tolist(),
            Source.RESULT: state.result.view(np.uint32).reshape(-1).tolist(),
            Source.SCALAR: state.scalars.view(np.uint32).tolist(),
        }
        self.bytes = {name: bytearray(getattr(state, name).tobytes()) for name in WRITTEN}
        self.best: tuple[int, int] | None = None

    def operand(self, fields: dict[str, int], name: str, row: int, element: int) -> int | None:
        source = fields[f"{name}_source"]
        if source == Source.NONE:
            return None
        if source == Source.CONSTANT:
            return fields[f"{name}_constant"]
        entry = fields[name] + row * fields[f"{name}_pitch"]
        if source != Source.SCALAR:
            entry = entry * self.lanes + element
        return self.buffers[source][entry % len(self.buffers[source])]

    def element(self, fields: dict[str, int], row: int, element: int) -> int:
        a, b, c = (self.operand(fields, name, row, element) for name in "abc")
        assert a is not None
        u = oracle.canonical(a, FP32)
        if b is not None:
            u = oracle.multiply(u, b, FP32)
        if c is not None:
            u = oracle.add(u, c, FP32)
        return oracle.function_bits(Function(fields["function"]), u, FP32)

    def write(self, name: str, position: int, content: bytes) -> bytes:
        memory = self.bytes[name]
        position %= len(memory)
        memory[position : position + len(content)] = content
        return content

    def length(self, fields: dict[str, int], row: int) -> int:
        """Elements of a row."""
        return fields["length"] + (row if fields["causal"] else 0)

    def beats(self, fields: dict[str, int], us: list[int]) -> list[list[int]]:
        """A row as beats, as many as the last row has, with zeros behind its end."""
        width = self.length(fields, fields["rows"] - 1)
        width += -width % self.spec.granule
        us = us + [0] * (width - len(us))
        return [us[begin : begin + self.lanes] for begin in range(0, width, self.lanes)]

    def write_row(self, fields: dict[str, int], row: int, us: list[int]) -> bytes:
        """Elements of one row to the target; returns the bytes in the order of the writes."""
        target, entry = fields["target"], fields["d"] + row * fields["d_pitch"]
        singles = {
            int(Target.SCALAR): "scalars",
            int(Target.STORE_FLOAT): "store",
            int(Target.MATRIX_SCALE): "matrix_scales",
        }
        if target in singles:
            return self.write(singles[target], 4 * entry, struct.pack("<I", us[0]))
        written = b""
        for place, part in enumerate(self.beats(fields, us), entry):
            if target == Target.VECTOR:
                written += self.write(
                    "vector", 4 * self.lanes * place, struct.pack(f"<{self.lanes}I", *part)
                )
            elif target:
                integers = [oracle.to_integer(u, 8, 0, FP32) for u in part]
                name = "activation" if target == Target.ACTIVATION else "store"
                written += self.write(
                    name, self.lanes * place, struct.pack(f"<{self.lanes}b", *integers)
                )
        return written

    def reduce(self, kind: int, us: list[int]) -> int:
        if kind == Reduce.SUM:
            total = sum(oracle.to_integer(u, 48, 30, FP32) for u in us)
            return oracle.from_integer(total, 30, FP32)
        if kind == Reduce.MAGNITUDE:
            us = [u & 0x7FFFFFFF for u in us]
        return max(us, key=self.order)

    @staticmethod
    def order(u: int) -> tuple[Fraction, bool]:
        """By value, and -0 below +0."""
        return as_number(u), not u >> 31

    def elements(self, fields: dict[str, int]) -> list[list[int]]:
        """Every element of every row."""
        return [
            [self.element(fields, row, element) for element in range(self.length(fields, row))]
            for row in range(fields["rows"])
        ]

    def execute(self, fields: dict[str, int]) -> int:
        rows = range(fields["rows"])
        us = self.elements(fields)
        if fields["reduce"] == Reduce.ARGMAX:
            if fields["restart"]:
                self.best = None
            for index, u in enumerate(us[0]):
                if self.best is None or self.order(u) > self.order(self.best[0]):
                    self.best = u, (fields["d"] * self.lanes + index) % (1 << vector.INDEX_BITS)
            return 0
        written = b"".join(self.write_row(fields, row, us[row]) for row in rows)
        results = b""
        for row in rows if fields["reduce"] else ():
            result = struct.pack("<I", self.reduce(fields["reduce"], us[row]))
            results += self.write("scalars", 4 * (fields["reduce_entry"] + row), result)
        return zlib.crc32(written) ^ zlib.crc32(results)


@pytest.mark.parametrize("target", list(SPECS))
def test_agrees_with_the_manual(target: str) -> None:
    rng = random.Random(7)
    spec = SPECS[target]
    state = MachineState(spec)
    fields = combinations(rng)
    fill(state, np.random.default_rng(11))
    best = None
    for number in range(180):
        values = random_operation(rng, spec, next(fields))
        values["rows"] = min(values["rows"], 5)
        values["length"] = min(values["length"], 40)
        manual = Manual(state)
        manual.best = best
        assert vector.execute(state, values) == manual.execute(values), (number, values)
        best = manual.best
        for name in WRITTEN:
            assert getattr(state, name).tobytes() == bytes(manual.bytes[name]), (
                number,
                name,
                values,
            )
        if best is not None:
            assert state.best_index == best[1], (number, values)
        if number % 20 == 0:
            fill(state, np.random.default_rng(number))


CORES = dataclasses.replace(SPECS["small"], cores=3)


@pytest.mark.parametrize("target", [Target.VECTOR, Target.ACTIVATION])
@pytest.mark.parametrize("seed", range(4))
def test_an_exchange_writes_the_parts_of_all_cores(seed: int, target: Target) -> None:
    rng = random.Random(seed)
    states = [MachineState(CORES) for _ in range(CORES.cores)]
    for number, state in enumerate(states):
        fill(state, np.random.default_rng(10 * seed + number))
    for fields in islice(combinations(rng), 12):
        fixed = fields | {"reduce": 0, "target": int(target), "exchange": 1}
        values = random_operation(rng, CORES, fixed)
        values |= {"rows": min(values["rows"], 4), "length": min(values["length"], 30)}
        values["exchange_pitch"] = rng.choice([values["exchange_pitch"], 0, 1, 5])
        try:
            vector_check.check_order(CORES, values)
        except IllegalInstruction:
            values |= {"a_source": 1, "b_source": 3, "c_source": 0}
        manuals = [Manual(state) for state in states]
        us = [manual.elements(values) for manual in manuals]
        written = b""
        for row in range(values["rows"]):
            parts = [manual.beats(values, u[row]) for manual, u in zip(manuals, us, strict=True)]
            for beat, words in enumerate(zip(*parts, strict=True)):
                for core, word in enumerate(words):
                    place = values["d"] + row * values["d_pitch"] + beat
                    place += core * values["exchange_pitch"]
                    content = struct.pack(f"<{CORES.lanes}I", *word)
                    name, unit = "vector", 4
                    if target == Target.ACTIVATION:
                        integers = [oracle.to_integer(u, 8, 0, FP32) for u in word]
                        content = struct.pack(f"<{CORES.lanes}b", *integers)
                        name, unit = "activation", 1
                    written += content
                    for manual in manuals:
                        manual.write(name, unit * CORES.lanes * place, content)
        assert vector.exchange(states, values) == [zlib.crc32(written)] * 3, values
        for state, manual in zip(states, manuals, strict=True):
            for name in WRITTEN:
                assert getattr(state, name).tobytes() == bytes(manual.bytes[name]), values


@pytest.mark.parametrize("seed", range(6))
def test_a_reduction_with_exchange_is_over_all_cores(seed: int) -> None:
    rng = random.Random(seed)
    states = [MachineState(CORES) for _ in range(CORES.cores)]
    for number, state in enumerate(states):
        fill(state, np.random.default_rng(10 * seed + number))
    reductions = [Reduce.MAXIMUM, Reduce.MAGNITUDE, Reduce.SUM]
    for number, fields in enumerate(islice(combinations(rng), 12)):
        fields |= {"reduce": int(reductions[number % 3]), "exchange": 1}
        if fields["target"] == Target.SCALAR:
            fields["target"] = int(Target.NONE)
        values = random_operation(rng, CORES, fields)
        values |= {"rows": min(values["rows"], 4), "length": min(values["length"], 30)}
        manuals = [Manual(state) for state in states]
        us = [manual.elements(values) for manual in manuals]
        rows = range(values["rows"])
        # What a core writes is its own; results are those of one row as long as all parts together.
        sums = [
            zlib.crc32(b"".join(manual.write_row(values, row, own[row]) for row in rows))
            for manual, own in zip(manuals, us, strict=True)
        ]
        results = [
            manuals[0].reduce(values["reduce"], [u for own in us for u in own[row]]) for row in rows
        ]
        for manual in manuals:
            for row, result in enumerate(results):
                place = 4 * (values["reduce_entry"] + row)
                manual.write("scalars", place, struct.pack("<I", result))
        common = zlib.crc32(struct.pack(f"<{len(results)}I", *results))
        assert vector.exchange(states, values) == [own ^ common for own in sums], values
        for state, manual in zip(states, manuals, strict=True):
            for name in WRITTEN:
                assert getattr(state, name).tobytes() == bytes(manual.bytes[name]), values


def test_an_exchange_needs_every_core() -> None:
    states = [MachineState(CORES) for _ in range(2)]
    with pytest.raises(ValueError, match="needs the 3 cores"):
        vector.exchange(states, operation(CORES, exchange=1))
    with pytest.raises(ValueError, match="needs the 3 cores"):
        vector.execute(states[0], operation(CORES, exchange=1))


@pytest.mark.parametrize(
    "legal, values",
    [
        # Core 2 writes row 20.
        (False, {"d": 0, "a": 20}),
        (True, {"d": 0, "a": 21}),
        (False, {"d": 0, "a": 0}),
        (True, {"d": 0, "a": 10, "a_source": Source.RESULT}),
        (False, {"d": 63, "a": 82 - 64, "length": 16, "exchange_pitch": 9}),
        (True, {"d": 63, "a": 83 - 64, "length": 16, "exchange_pitch": 9}),
    ],
)
def test_an_exchange_reads_no_row_that_any_core_writes(legal: bool, values: dict[str, int]) -> None:
    fields = {"a_source": Source.VECTOR, "exchange": 1, "exchange_pitch": 10} | values
    states = [MachineState(CORES) for _ in range(3)]
    if legal:
        vector.exchange(states, operation(CORES, **fields))
        return
    with pytest.raises(IllegalInstruction, match="exchange"):
        vector.exchange(states, operation(CORES, **fields))


def test_a_sum_wraps_at_64_bits_and_no_earlier() -> None:
    spec = SPECS["small"]
    state = MachineState(spec)
    state.input[...] = 3e38
    length = 1 << 17
    values = operation(spec, length=length, reduce=Reduce.SUM, target=0, reduce_entry=3)
    vector.execute(state, values)
    # 2**17 elements of 2**47 - 1 do not fit 63 bits and a sign.
    total = length * ((1 << 47) - 1) - (1 << 64)
    assert state.scalars[3] == np.float32(total * 2.0**-30)


def test_argmax_keeps_the_first_of_equals_over_several_instructions() -> None:
    spec = SPECS["tiny"]
    state = MachineState(spec)
    row = np.array([-1, 4, -0.0, 4, 0, 2, 4, 1], np.float32)
    state.input[:4] = row.reshape(4, 2)
    argmax = operation(spec, reduce=Reduce.ARGMAX, target=0)
    vector.execute(state, argmax | {"d": 100, "restart": 1})
    assert (state.best_value, state.best_index) == (4.0, 201)
    vector.execute(state, argmax | {"d": 0})
    assert state.best_index == 201, "an equal element replaced an earlier one"
    vector.execute(state, argmax | {"d": 300, "restart": 1})
    assert state.best_index == 601
    state.input[0] = 5
    vector.execute(state, argmax | {"d": 524288 // 2 + 7})
    assert state.best_index == 524288 + 14
    vector.restart(state)
    assert (state.best_value, state.best_index) == (None, 0)


@pytest.mark.parametrize(
    "values",
    [
        {"rows": 0},
        {"length": 0},
        {"a_source": Source.NONE},
        {"a_source": Source.CONSTANT},
        {"a_source": 6},
        {"b_source": 6},
        {"c_source": 7},
        {"reduce": 5},
        {"target": 7},
        {"reduce": Reduce.ARGMAX, "rows": 2},
        {"function": 5},
        {"function": 7},
        {"exchange": 1, "target": Target.SCALAR},
        {"exchange": 1, "target": Target.STORE_INTEGER},
        {"exchange": 1, "target": Target.NONE},
        {"exchange": 1, "reduce": Reduce.ARGMAX},
        {"target": Target.SCALAR, "reduce": Reduce.SUM},
        {"target": Target.SCALAR, "reduce": Reduce.MAXIMUM},
    ],
)
def test_refuses_what_the_hardware_flags(values: dict[str, int]) -> None:
    spec = SPECS["small"]
    state = MachineState(spec)
    with pytest.raises(IllegalInstruction, match="^SFU: "):
        vector.execute(state, operation(spec, **values))
    assert vector.execute(state, operation(spec, **values, sync=1)) == 0


@pytest.mark.parametrize(
    "legal, values",
    [
        (True, {"d": 10}),
        (True, {"d": 8, "a": 10, "length": 16}),
        (False, {"d": 9, "a": 10, "length": 16}),
        (False, {"d": 11, "a": 10, "length": 16}),
        (True, {"d": 12, "a": 10, "length": 16}),
        # Row 1 reads what row 0 wrote, or the other way round.
        (False, {"d": 10, "a": 10, "rows": 2, "d_pitch": 1}),
        (True, {"d": 10, "a": 10, "rows": 2, "a_pitch": 5, "d_pitch": 5}),
        (False, {"d": 10, "a": 10, "rows": 2, "a_pitch": 1, "d_pitch": 1, "length": 16}),
        (True, {"d": 11, "a": 10, "rows": 3, "a_pitch": 2, "d_pitch": 2}),
        (False, {"d": 11, "a": 10, "rows": 3, "a_pitch": 1, "d_pitch": 2}),
        # 64 rows: addresses wrap.
        (False, {"d": 0, "a": 63, "length": 16}),
        (True, {"d": 63, "a": 63, "length": 16}),
        (True, {"d": 64, "a": 0}),
        # Any operand counts, and only the buffer that is written.
        (False, {"d": 9, "a": 20, "b": 10, "b_source": Source.VECTOR, "length": 16}),
        (True, {"d": 9, "a": 20, "b": 10, "b_source": Source.RESULT, "length": 16}),
        (True, {"d": 9, "a": 10, "length": 16, "target": Target.ACTIVATION}),
        (True, {"d": 9, "a": 10, "length": 16, "target": 0, "reduce": Reduce.ARGMAX}),
    ],
)
def test_refuses_elements_written_where_another_beat_reads(
    legal: bool, values: dict[str, int]
) -> None:
    _check_refusal(legal, {"a_source": Source.VECTOR} | values)


@pytest.mark.parametrize(
    "legal, values",
    [
        (True, {"target": Target.SCALAR, "a": 4, "d": 4}),
        (True, {"target": Target.SCALAR, "a": 4, "d": 4, "rows": 3, "a_pitch": 1, "d_pitch": 1}),
        (False, {"target": Target.SCALAR, "a": 4, "d": 5, "rows": 3, "a_pitch": 1, "d_pitch": 1}),
        (False, {"target": Target.SCALAR, "a": 4, "d": 4, "rows": 3, "d_pitch": 1}),
        (True, {"target": Target.SCALAR, "a": 4, "d": 36, "rows": 3, "a_pitch": 1, "d_pitch": 1}),
        (False, {"reduce": Reduce.SUM, "a": 4, "reduce_entry": 4}),
        (False, {"reduce": Reduce.SUM, "a": 4, "reduce_entry": 36}),
        (False, {"reduce": Reduce.SUM, "a": 4, "reduce_entry": 2, "rows": 3}),
        (True, {"reduce": Reduce.SUM, "a": 5, "reduce_entry": 2, "rows": 3}),
        (False, {"reduce": Reduce.SUM, "a": 0, "reduce_entry": 31, "rows": 2}),
        (True, {"target": Target.MATRIX_SCALE, "a": 4, "d": 5, "rows": 3, "a_pitch": 1}),
    ],
)
def test_refuses_scalars_written_where_they_are_read(legal: bool, values: dict[str, int]) -> None:
    _check_refusal(legal, {"a_source": Source.SCALAR, "d": 40} | values)


def _check_refusal(legal: bool, values: dict[str, int]) -> None:
    spec = SPECS["small"]
    state = MachineState(spec)
    fill(state, np.random.default_rng(3))
    before = copy.deepcopy(state)
    if legal:
        vector.execute(state, operation(spec, **values))
        return
    with pytest.raises(IllegalInstruction, match="read"):
        vector.execute(state, operation(spec, **values))
    for name in WRITTEN:
        assert getattr(state, name).tobytes() == getattr(before, name).tobytes(), (
            "changed before it was refused"
        )


def test_the_random_operations_are_of_all_kinds() -> None:
    rng = random.Random(1)
    spec = SPECS["small"]
    seen: list[dict[str, Any]] = [
        random_operation(rng, spec, f) for f in islice(combinations(rng), 150)
    ]
    assert {o["function"] for o in seen} == {0, 1, 2, 3, 4}
    assert {(o["causal"], o["rows"] > 1) for o in seen} == {(c, m) for c in (0, 1) for m in (0, 1)}
    in_place = [
        o
        for o in seen
        if o["target"] == Target.VECTOR and o["a_source"] == Source.VECTOR and o["a"] == o["d"]
    ]
    assert in_place and max(o["rows"] for o in seen) >= 20 and max(o["length"] for o in seen) >= 100
