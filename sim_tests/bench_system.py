"""cocotb tests of the SYS unit: tokens, end, checksum and cycle of every instruction, against plain Python."""

import random
import zlib
from typing import Any

import cocotb

from hw.core.ports import operation_layout
from hw.spec.instructions import Unit
from hw.spec.registers import STOP_TOKENS
from sim_tests.bench import layout_fields
from sim_tests.streams import PACES, Bench, parameters, seed


class Others:
    """Whether all other cores have come to their EXECUTE, if there are others: at random, and often not."""

    def __init__(self, dut: Any, rng: random.Random) -> None:
        self.port = dut.others if parameters()["cores"] > 1 else None
        self.rng = rng
        self.step()

    def step(self) -> None:
        if self.port is not None:
            self.port.value = int(self.rng.random() < 0.2)


class Watch:
    """Records each end: cycle, checksum, and the registers in the cycle behind it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.ends: list[tuple[int, int]] = []
        self.after: list[tuple[int, int, int]] = []
        self._behind = False

    def step(self) -> None:
        dut = self.bench.dut
        if self._behind:
            self.after.append((int(dut.token.value), int(dut.ended.value), int(dut.length.value)))
        self._behind = bool(dut.done.value)
        if self._behind:
            self.ends.append((self.bench.cycle, int(dut.checksum.value)))
        assert not dut.illegal.value


@cocotb.test()
@cocotb.parametrize(gaps=list(PACES))
async def takes_tokens(dut: Any, gaps: str) -> None:
    depth, cycles = parameters()["tokens"], parameters()["cycles"]
    rng = random.Random(f"{seed()} {gaps}")
    for name in ("running", "host_write__enable", "best_index", "host_read__address"):
        getattr(dut, name).value = 0
    bench = await Bench.start(dut)
    bench.agents.append(Others(dut, rng))
    buffer = [rng.getrandbits(20) for _ in range(depth)]
    for address, token in enumerate(buffer):
        dut.host_write__enable.value = 1
        dut.host_write__address.value = address
        dut.host_write__data.value = token
        await bench.cycles(1)
    dut.host_write__enable.value = 0
    source = bench.source("i", layout_fields(operation_layout(Unit.SYS)), PACES[gaps])
    for _ in range(6):
        prompt_length, steps = rng.randint(1, 8), rng.randint(8, 16)
        stops = [rng.randint(0, 3) for _ in range(STOP_TOKENS)]
        enable = rng.getrandbits(STOP_TOKENS)
        dut.prompt_length.value, dut.steps.value, dut.stop_enable.value = (
            prompt_length,
            steps,
            enable,
        )
        for number, stop in enumerate(stops):
            getattr(dut, f"stop_token__{number}").value = stop
        dut.rst.value = 1
        dut.running.value = 1
        await bench.cycles(1)
        dut.rst.value = 0
        await bench.cycles(1)
        assert (int(dut.token.value), int(dut.ended.value), int(dut.length.value)) == (0, 0, 0)
        watch = Watch(bench)
        bench.agents.append(watch)
        first = len(source.cycles)
        expected = []
        token, end, length = 0, 0, 0
        for position in range(rng.randint(5, 20)):
            sync = rng.random() < 0.2
            best = rng.choice([rng.randint(0, 4), rng.getrandbits(20)])
            dut.best_index.value = best
            if sync:
                checksum = 0
            else:
                token = buffer[position] if position < prompt_length else best
                buffer[position] = token
                stopped = any(enable >> i & 1 and stop == token for i, stop in enumerate(stops))
                end = int(position >= steps or (position >= prompt_length and stopped))
                length = position + 1
                checksum = zlib.crc32(token.to_bytes(4, "little") + end.to_bytes(4, "little"))
            expected.append((sync, checksum, (token, end, length)))
            source.send([{"sync": int(sync), "position": position}])
            await source.drained()
            await bench.cycles(cycles + 1)
        bench.agents.remove(watch)
        issues = source.cycles[first:]
        assert len(watch.ends) == len(watch.after) == len(expected)
        for issue, (cycle, checksum), after, want in zip(
            issues, watch.ends, watch.after, expected, strict=True
        ):
            assert cycle == issue + (1 if want[0] else cycles)
            assert checksum == want[1]
            assert after == want[2]
        dut.running.value = 0
        for address, token in enumerate(buffer):
            dut.host_read__address.value = address
            await bench.cycles(2)
            assert int(dut.host_read__data.value) == token


@cocotb.test()
async def takes_one_instruction_at_a_time(dut: Any) -> None:
    for name in (
        "host_write__enable",
        "best_index",
        "prompt_length",
        "steps",
        "stop_enable",
    ):
        getattr(dut, name).value = 0
    dut.running.value = 1
    if parameters()["cores"] > 1:
        dut.others.value = 1
    bench = await Bench.start(dut)
    source = bench.source("i", layout_fields(operation_layout(Unit.SYS)))
    source.send([{"sync": 0, "position": p} for p in range(10)])
    await source.drained()
    spacing = {b - a for a, b in zip(source.cycles, source.cycles[1:], strict=False)}
    assert spacing == {parameters()["cycles"] + 1}


@cocotb.test()
async def reset_drops_what_is_under_way(dut: Any) -> None:
    for name in ("host_write__enable", "best_index", "steps", "stop_enable"):
        getattr(dut, name).value = 0
    dut.running.value = 1
    dut.prompt_length.value = 4
    if parameters()["cores"] > 1:
        dut.others.value = 1
    bench = await Bench.start(dut)
    source = bench.source("i", layout_fields(operation_layout(Unit.SYS)))
    cycles = parameters()["cycles"]
    for age, sync in [*((age, 0) for age in range(cycles)), (0, 1)]:
        source.send([{"sync": sync, "position": 2}])
        await source.drained()
        await bench.cycles(age)
        dut.rst.value = 1
        await bench.cycles(1)
        dut.rst.value = 0
        # What the reset meets in its own cycle is of no consequence: everything is set back behind it.
        await bench.cycles(1)
        watch = Watch(bench)
        bench.agents.append(watch)
        await bench.cycles(cycles + 2)
        bench.agents.remove(watch)
        assert watch.ends == [], f"age {age}: it went on"
        assert (int(dut.token.value), int(dut.ended.value), int(dut.length.value)) == (0, 0, 0)
