"""cocotb tests of a sequencer: every operation, token and cycle of random programs, against `sequencer_model`."""

import random
from typing import Any

import cocotb

from hw.core.ports import operation_layout
from hw.core.retirement import in_flight
from hw.spec.instructions import (
    Opcode,
    Register,
    Unit,
    encode,
    instruction_bits,
)
from hw.spec.latency import CONTROL_CYCLES, EVALUATE_CYCLES, FETCH_CYCLES
from hw.spec.machine_file import load_machine
from sim_tests.bench import layout_fields
from sim_tests.packing import unpack
from sim_tests.sequencer_model import Context, State, control, operation, random_program
from sim_tests.streams import Bench, parameters, seed


class Environment:
    """The unit, the token counters and the TOKEN register; records what happens in every cycle."""

    def __init__(
        self, bench: Bench, unit: Unit, rng: random.Random, depth: int, calm: bool
    ) -> None:
        self.bench, self.dut, self.rng = bench, bench.dut, rng
        self.depth, self.calm = depth, calm
        self.layout = layout_fields(operation_layout(unit))
        self.under_way: list[int] = []
        self.records: list[dict[str, Any]] = []
        self.drive()

    def drive(self) -> None:
        """Inputs of the coming cycle."""
        rng, dut = self.rng, self.dut
        busy = len(self.under_way)
        done = bool(busy) and (self.calm or rng.random() < 0.2)
        self.inputs = {
            "available": 31 if self.calm else rng.getrandbits(5) | rng.getrandbits(5),
            "o__ready": int(busy < self.depth and (self.calm or rng.random() < 0.5)),
            "done": int(done),
            "checksum": rng.getrandbits(32),
            "token": rng.getrandbits(20),
        }
        for name, value in self.inputs.items():
            getattr(dut, name).value = value

    def step(self) -> None:
        dut = self.dut
        record: dict[str, Any] = dict(self.inputs, cycle=self.bench.cycle)
        for name in ("take", "send", "o__valid", "waiting", "idle", "busy", "illegal", "outside"):
            record[name] = int(getattr(dut, name).value)
        if record["o__valid"]:
            record["payload"] = unpack(self.layout, int(dut.o__payload.value))
        if self.inputs["done"]:
            self.under_way.pop(0)
        if record["o__valid"] and self.inputs["o__ready"]:
            self.under_way.append(self.bench.cycle)
        record["trace"] = int(dut.retirement.value) if record["done"] else 0
        self.records.append(record)
        self.drive()


async def load(bench: Bench, unit: Unit, words: list[int]) -> None:
    dut = bench.dut
    bits = instruction_bits(unit)
    for address, word in enumerate(words):
        dut.instruction__enable.value = (1 << bits // 32) - 1
        dut.instruction__address.value = address
        dut.instruction__data.value = word
        await bench.cycles(1)
    dut.instruction__enable.value = 0


def check(
    unit: Unit, words: list[int], records: list[dict[str, Any]], start: int, context: Context
) -> int:
    """Compare a run with the model; returns the number of operations."""
    state = State()
    at = {record["cycle"]: record for record in records}
    fetch = start + 1
    takes, offers, issues = {}, set(), []
    while True:
        word = words[state.pc]
        if word & 0xF not in (Opcode.SYNC, Opcode.EXECUTE):
            if not control(unit, word, state, context):
                break
            fetch += CONTROL_CYCLES
            continue
        wait, signal = word >> 4 & 31, word >> 9 & 31
        taken = fetch + FETCH_CYCLES
        while wait & ~at[taken]["available"]:
            assert at[taken]["waiting"], f"cycle {taken}: waiting is not shown"
            taken += 1
        takes[taken] = wait
        issue = taken + EVALUATE_CYCLES + 1
        offers.add(issue)
        while not at[issue]["o__ready"]:
            issue += 1
            offers.add(issue)

        def register(number: int, taken: int = taken) -> int:
            values = {
                Register.POSITION: state.position,
                Register.PROMPT_LENGTH: context.prompt_length,
            }
            values |= {Register.STEPS: context.steps, Register.TOKEN: at[taken]["token"]}
            values[Register.SKIPPED] = state.skipped
            values[Register.REST] = max(0, state.position - state.skipped)
            return values.get(Register(number), 0)

        expected = operation(unit, word, register, state.index, state.position)
        found = at[issue].get("payload")
        assert found is not None, f"cycle {issue}: instruction {state.pc} is not offered"
        for name, value in expected.items():
            assert found[name] == value, (
                f"instruction {state.pc}: {name} = {found[name]:#x}, expected {value:#x}"
            )
        issues.append((issue, state.pc, signal, list(state.index)))
        state.pc += 1
        fetch = issue + 1
    ends = [record for record in records if record["done"]]
    assert len(ends) == len(issues)
    for end, (issue, pc, signal, index) in zip(ends, issues, strict=True):
        assert end["send"] == signal, (
            f"instruction {pc} signals {end['send']:#x}, expected {signal:#x}"
        )
        assert end["trace"] == pack_trace(
            pc, index, issue - start, end["cycle"] - start, end["checksum"]
        )
    for record in records:
        cycle = record["cycle"]
        if cycle <= start:
            continue
        assert record["take"] == takes.get(cycle, 0), f"cycle {cycle}: takes {record['take']:#x}"
        assert bool(record["o__valid"]) == (cycle in offers), (
            f"cycle {cycle}: offered {record['o__valid']}"
        )
        assert not record["illegal"] and not record["outside"]
        busy = sum(i < cycle for i, *_ in issues) > sum(end["cycle"] < cycle for end in ends)
        assert record["busy"] == busy
        # HALT executes in the cycle before the next fetch would be.
        assert record["idle"] == (cycle >= fetch + CONTROL_CYCLES and not busy)
    return len(issues)


def pack_trace(pc: int, index: list[int], issue: int, end: int, checksum: int) -> int:
    word = 1 | pc << 1
    for level, value in enumerate(index):
        word |= value << 14 + 20 * level
    return word | issue << 94 | end << 142 | checksum << 190


@cocotb.test()
@cocotb.parametrize(calm=[True, False])
async def runs_random_programs(dut: Any, calm: bool) -> None:
    unit = Unit(parameters()["unit"])
    spec = load_machine(parameters()["target"])
    rng = random.Random(f"{seed()} {unit} {calm}")
    for name in ("start", "stop", "refused", "o__ready", "done", "instruction__enable", "cycle"):
        getattr(dut, name).value = 0
    bench = await Bench.start(dut)
    operations = 0
    for _ in range(60):
        context = Context(rng.randint(1, 9), rng.randint(1, 20), rng.getrandbits(1))
        words = random_program(unit, rng)
        dut.prompt_length.value, dut.steps.value, dut.ended.value = (
            context.prompt_length,
            context.steps,
            context.end,
        )
        await load(bench, unit, words)
        environment = Environment(bench, unit, rng, in_flight(spec, unit), calm)
        bench.agents.append(environment)
        dut.start.value = 1
        await bench.cycles(1)
        dut.start.value = 0
        start = bench.cycle
        counter = CycleCounter(bench, start)
        bench.agents.append(counter)
        quiet = 0
        while quiet < 3:
            await bench.cycles(1)
            last = environment.records[-1]
            quiet = quiet + 1 if last["idle"] and last["cycle"] > start else 0
        bench.agents.clear()
        operations += check(unit, words, environment.records, start, context)
    assert operations > 500


class CycleCounter:
    """Drives `cycle` as `Control` does."""

    def __init__(self, bench: Bench, start: int) -> None:
        self.bench, self.start = bench, start
        bench.dut.cycle.value = bench.cycle + 1 - start

    def step(self) -> None:
        self.bench.dut.cycle.value = self.bench.cycle + 1 - self.start


@cocotb.test()
async def refuses_what_is_illegal(dut: Any) -> None:
    unit = Unit(parameters()["unit"])
    for name in (
        "start",
        "stop",
        "refused",
        "o__ready",
        "done",
        "instruction__enable",
        "cycle",
        "available",
    ):
        getattr(dut, name).value = 0
    bench = await Bench.start(dut)
    count = {"count_cap": 1, "count_offset": 1, "count_scale": 1}
    loop = encode(unit, Opcode.LOOP, target=0, **count)
    cases = {
        "opcode 0": ([0], 0),
        "opcode 15": ([15], 0),
        "loop end without a loop": ([encode(unit, Opcode.END_LOOP)], 0),
        "fifth loop": ([loop] * 5, 4),
        "branch out of a loop that is not open": ([encode(unit, Opcode.BRANCH, close=1)], 0),
        "beyond the memory": ([encode(unit, Opcode.BRANCH, target=4095)], None),
    }
    for name, (words, pc) in cases.items():
        await load(bench, unit, words)
        dut.start.value = 1
        await bench.cycles(1)
        dut.start.value = 0
        for _ in range(40):
            await bench.cycles(1)
            if dut.illegal.value or dut.outside.value:
                break
        else:
            raise AssertionError(f"{name}: no error")
        assert bool(dut.outside.value) == (pc is None), name
        assert int(dut.pc.value) == (4095 if pc is None else pc), name
        dut.stop.value = 1
        await bench.cycles(2)
        dut.stop.value = 0
        assert dut.idle.value, name
