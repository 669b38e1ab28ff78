"""cocotb tests of the vector unit: every write, checksum and end cycle, against the golden model."""

import copy
import itertools
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import cocotb
import numpy as np

from emulator.state import MachineState
from emulator.units.vector import execute, restart
from emulator.units.vector_check import longest_row
from hw.spec.instructions import Reduce, Source, Target, Unit, operation_fields
from hw.spec.latency import vector_beats, vector_cycles
from hw.spec.machine import MachineSpec
from sim_tests.packing import pack_lanes
from sim_tests.streams import FLOWING, PACES, Bench, Pace, parameters, seed
from sim_tests.vector_operations import (
    Operation,
    bench_machine,
    combinations,
    fill,
    random_operation,
)

LAYOUT = operation_fields(Unit.SFU)
SYNC = {name: 0 for name, _ in LAYOUT} | {"sync": 1}
LOADED = {"input": 0, "vector": 1, "result": 2, "scalars": 3}
WRITTEN = ("vector", "scalars", "activation", "store", "matrix_scales")


@dataclass
class Expected:
    """What one operation must do, by the golden model."""

    operation: Operation
    cycles: int
    checksum: int
    best_index: int
    writes: int
    buffers: dict[str, bytes] = field(repr=False)


def snapshot(state: MachineState) -> dict[str, bytes]:
    """Contents of the buffers that the unit writes."""
    return {name: getattr(state, name).tobytes() for name in WRITTEN}


def expect(state: MachineState, operation: Operation) -> Expected:
    """Run the golden model on an operation."""
    spec = state.spec
    checksum = execute(state, operation)
    cycles, writes = 1, 0
    if not operation["sync"]:
        rows, target = operation["rows"], operation["target"]
        length = longest_row(operation)
        exchange, reduce = bool(operation["exchange"]), bool(operation["reduce"])
        cycles = vector_cycles(spec, rows, length, exchange, reduce)
        if operation["reduce"] != Reduce.ARGMAX:
            if target in (Target.VECTOR, Target.ACTIVATION, Target.STORE_INTEGER):
                writes += rows * vector_beats(spec, length)
            elif target:
                writes += rows
            writes += rows if operation["reduce"] else 0
    return Expected(operation, cycles, checksum, state.best_index, writes, snapshot(state))


class Monitor:
    """Applies every write to a copy of the buffers; checks them at the end of each operation."""

    def __init__(self, bench: Bench, mirror: MachineState):
        self.bench = bench
        self.dut = bench.dut
        self.mirror = mirror
        self.expected: list[Expected] = []
        self.writes = 0
        self.ends: list[int] = []
        self.illegal: list[int] = []

    def step(self) -> None:
        dut = self.dut
        if not int(dut.active.value):
            return
        for port, name in (
            ("vector", "vector"),
            ("scalar", "scalars"),
            ("activation", "activation"),
            ("store", "store"),
            ("matrix_scale", "matrix_scales"),
        ):
            enable = int(getattr(dut, f"{port}__enable").value)
            if enable:
                address = int(getattr(dut, f"{port}__address").value)
                self._write(name, enable, address, getattr(dut, f"{port}__data"))
        if int(dut.illegal.value):
            self.illegal.append(self.bench.cycle)
        if int(dut.done.value):
            self._end()

    def _write(self, name: str, enable: int, address: int, port: Any) -> None:
        self.writes += 1
        row_bytes = len(port) // 8
        content = getattr(self.mirror, name).reshape(-1).view(np.uint8).reshape(-1, row_bytes)
        word = np.frombuffer(int(port.value).to_bytes(row_bytes, "little"), np.uint8)
        granule = min(self.mirror.spec.lanes, 4) if name == "store" else row_bytes
        for part in range(row_bytes // granule):
            if enable >> part & 1:
                chosen = slice(part * granule, (part + 1) * granule)
                content[address, chosen] = word[chosen]

    def _end(self) -> None:
        number = len(self.ends)
        assert number < len(self.expected), f"cycle {self.bench.cycle}: an end that nothing caused"
        expected = self.expected[number]
        self.ends.append(self.bench.cycle)
        where = f"operation {number}, {expected}"
        assert self.writes == expected.writes, f"{self.writes} writes; {where}"
        self.writes = 0
        for name, content in snapshot(self.mirror).items():
            assert content == expected.buffers[name], f"{name} differs; {where}"
        checksum = int(self.dut.checksum.value)
        assert checksum == expected.checksum, f"checksum {checksum:#x}; {where}"
        best_index = int(self.dut.best_index.value)
        assert best_index == expected.best_index, f"best index {best_index}; {where}"


class LoadedUnit:
    """One vector unit with its buffers loaded, its golden state and its monitor."""

    def __init__(self, bench: Bench, spec: MachineSpec, pace: Pace):
        self.bench = bench
        self.spec = spec
        self.state = MachineState(spec)
        self.source = bench.source("i", LAYOUT, pace)
        self.monitor = Monitor(bench, self.state)
        bench.agents.append(self.monitor)

    async def load(self, rng: np.random.Generator) -> None:
        """New random contents for the buffers, in hardware, golden model and mirror."""
        fill(self.state, rng)
        dut = self.bench.dut
        dut.load.value = 1
        for name, select in LOADED.items():
            buffer = getattr(self.state, name)
            rows = buffer.reshape(len(buffer), -1).view(np.uint32)
            for address, row in enumerate(rows):
                dut.load_select.value = 1 << select
                dut.load_address.value = address
                dut.load_data.value = pack_lanes(row, 32)
                await self.bench.cycles(1)
        dut.load.value = 0
        await self.bench.cycles(1)
        self.monitor.mirror = copy.deepcopy(self.state)

    def send(self, operations: Iterable[Operation]) -> None:
        """Queue operations for hardware and golden model."""
        for operation in operations:
            self.monitor.expected.append(expect(self.state, operation))
            self.source.send([operation])

    async def settle(self) -> None:
        """Wait for the end of everything that was sent, and check the end cycles."""
        await self.source.drained()
        longest = max((e.cycles for e in self.monitor.expected), default=0)
        await self.bench.cycles(longest + 5)
        ends, expected = self.monitor.ends, self.monitor.expected
        assert len(ends) == len(expected), f"{len(ends)} of {len(expected)} operations ended"
        assert self.monitor.writes == 0, "a write behind the last end"


async def begin(dut: Any, pace: Pace = FLOWING) -> LoadedUnit:
    dut.load.value = 0
    bench = await Bench.start(dut)
    return LoadedUnit(bench, bench_machine(parameters()["target"]), pace)


def check_timing(unit: LoadedUnit) -> None:
    """Every operation ends in its cycle; without gaps the next one is accepted in the cycle behind."""
    accepted, ends, expected = unit.source.cycles, unit.monitor.ends, unit.monitor.expected
    for number, (start, end, one) in enumerate(zip(accepted, ends, expected, strict=True)):
        assert end - start == one.cycles, f"operation {number} took {end - start} cycles; {one}"


@cocotb.test()
@cocotb.parametrize(gaps=list(PACES))
async def agrees_with_the_golden_model(dut: Any, gaps: str) -> None:
    unit = await begin(dut, PACES[gaps])
    rng = random.Random(f"{seed()} {gaps}")
    numbers = np.random.default_rng(rng.getrandbits(32))
    fields = combinations(rng)
    rounds, count = parameters()["rounds"], parameters()["operations"]
    for _ in range(rounds):
        await unit.load(numbers)
        operations = [random_operation(rng, unit.spec, f) for f in itertools.islice(fields, count)]
        for position in range(count // 10, count, count // 4):
            operations.insert(position, SYNC)
        unit.send(operations)
        first = len(unit.source.cycles)
        await unit.settle()
        if gaps == "flowing":
            starts, ends = unit.source.cycles[first + 1 :], unit.monitor.ends[first:-1]
            assert starts == [end + 1 for end in ends], "not ready in the cycle behind an end"
    check_timing(unit)
    seen = [e.operation for e in unit.monitor.expected if not e.operation["sync"]]
    assert len({(o["function"], o["reduce"], o["target"]) for o in seen}) == 5 * (5 * 7 - 3)
    assert len({(o["a_source"], o["b_source"], o["c_source"]) for o in seen}) == 4 * 6 * 6


def plain(spec: MachineSpec, **fields: int) -> Operation:
    """VECTOR = INPUT, one granule, unless `fields` say otherwise."""
    defaults = {
        "rows": 1,
        "length": spec.granule,
        "a_source": int(Source.INPUT),
        "target": int(Target.VECTOR),
    }
    return SYNC | {"sync": 0} | defaults | fields


def illegal_operations(spec: MachineSpec) -> list[Operation]:
    """One operation for each reason to refuse one."""
    reductions = (Reduce.MAXIMUM, Reduce.MAGNITUDE, Reduce.SUM)
    wrong = [
        {"rows": 0},
        {"length": 0},
        *({"a_source": source} for source in (0, 5, 6, 7)),
        *({f"{name}_source": source} for name in "bc" for source in (6, 7)),
        *({"reduce": reduce} for reduce in (5, 6, 7)),
        {"reduce": int(Reduce.ARGMAX), "rows": 2},
        {"target": 7},
        *({"target": int(Target.SCALAR), "reduce": int(reduce)} for reduce in reductions),
        *({"function": function} for function in (5, 6, 7)),
        *(
            {"exchange": 1, "target": int(target)}
            for target in Target
            if target not in (Target.VECTOR, Target.ACTIVATION)
        ),
        {"exchange": 1, "reduce": int(Reduce.ARGMAX)},
    ]
    return [plain(spec, **fields) for fields in wrong]


@cocotb.test()
async def refuses_illegal_operations_and_stays_idle(dut: Any) -> None:
    unit = await begin(dut)
    await unit.load(np.random.default_rng(seed()))
    wrong = illegal_operations(unit.spec)
    unit.source.send(wrong)
    await unit.source.drained()
    await unit.bench.cycles(60)
    assert unit.monitor.illegal == [cycle + 1 for cycle in unit.source.cycles]
    assert np.diff(unit.source.cycles).tolist() == [1] * (len(wrong) - 1)
    assert unit.monitor.writes == 0 and not unit.monitor.ends
    # None of the fields counts in a SYNC, and a legal operation follows as if nothing had been.
    unit.source.cycles.clear()
    unit.send([SYNC | {"target": 7, "reduce": 7}, plain(unit.spec, rows=3, reduce=int(Reduce.SUM))])
    await unit.settle()
    check_timing(unit)
    assert len(unit.monitor.illegal) == len(wrong)


@cocotb.test()
async def reset_drops_what_is_under_way_and_forgets_the_maximum(dut: Any) -> None:
    unit = await begin(dut)
    await unit.load(np.random.default_rng(seed()))
    one = 0x3F800000
    argmax = plain(unit.spec, a_source=int(Source.SCALAR), reduce=int(Reduce.ARGMAX), target=0, d=5)
    argmax |= {"b_source": int(Source.CONSTANT), "c_source": int(Source.CONSTANT)}
    # 0*A + 1 first, then 0*A - 1, which is no new maximum until the first one is forgotten.
    unit.send([argmax | {"c_constant": one}, argmax | {"c_constant": one | 1 << 31, "d": 9}])
    await unit.settle()
    assert unit.state.best_index == 5 * unit.spec.lanes
    unit.source.send([
        plain(unit.spec, rows=200, length=4 * unit.spec.granule, reduce=int(Reduce.SUM))
    ])
    await unit.source.drained()
    await unit.bench.cycles(random.Random(seed()).randint(30, 90))
    assert unit.monitor.writes > 0
    dut.rst.value = 1
    await unit.bench.cycles(1)
    dut.rst.value = 0
    await unit.bench.cycles(2)
    assert int(dut.best_index.value) == 0
    unit.monitor.writes = 0
    await unit.bench.cycles(60)
    assert unit.monitor.writes == 0 and len(unit.monitor.ends) == 2, "something went on"
    await unit.load(np.random.default_rng(seed() + 1))
    restart(unit.state)
    unit.state.vector[...] = unit.monitor.mirror.vector
    unit.send([argmax | {"c_constant": one | 1 << 31, "d": 9}, plain(unit.spec)])
    await unit.settle()
    assert unit.state.best_index == 9 * unit.spec.lanes
