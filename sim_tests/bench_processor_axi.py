"""cocotb tests of the whole processor on memory and host models of `cocotbext.axi`: no cycle is fixed, every value is.

The models come from another project, so they share no misunderstanding of AXI with this one.
"""

from typing import Any

import cocotb
from cocotb.triggers import ClockCycles
from cocotbext.axi import AxiResp

from hw.spec.instructions import Unit
from hw.spec.machine import MachineSpec
from hw.spec.registers import ControlRegister, Counter, ErrorCode
from sim_tests.processor_session import CLOCK_STEPS, PACES, Session

RUNNING, DONE, ERROR = 1, 2, 4
TEST_LIMIT = 4_000_000


async def runs(session: Session, run: dict[str, Any]) -> None:
    """Run to the end, and compare tokens, every retirement and every memory word."""
    await session.begin(run)
    if len(run["prompt"]) > 1:  # otherwise a slow host may come too late
        assert (await session.read(ControlRegister.STATUS)) == [RUNNING]
        assert not session.dut.irq.value
        await session.write(ControlRegister.STEPS, 1, expected=AxiResp.SLVERR)
    await session.interrupt()
    assert await session.status() == (DONE, [ErrorCode.NONE, 0, 0])
    [length] = await session.read(ControlRegister.LENGTH)
    assert length == len(run["expected_tokens"])
    assert await session.read(ControlRegister.TOKENS, length) == run["expected_tokens"]
    for unit in Unit:
        compare_trace(unit, session.trace.entries[unit.name], run["trace"][unit.name])
    compare_memory(session.spec, session.memory(), bytes.fromhex(run["memory"]))


async def fails(session: Session, case: dict[str, Any]) -> None:
    """Run a broken program, or on a broken memory; it must stop and say why."""
    session.break_memory(case.get("faults", []))
    for name, words in case.get("instructions", {}).items():
        await session.load(Unit[name], words)
    await session.begin(case)
    await session.interrupt()
    status, [code, unit, pc] = await session.status()
    found = [ErrorCode(code).name, Unit(unit).name, pc]
    assert (status, found) == (DONE | ERROR, case["expected"]), (
        f"status {status}, {found}, not {case['expected']}"
    )
    if code == ErrorCode.DEADLOCK:
        await check_silence(session)


async def recovers(session: Session, case: dict[str, Any]) -> None:
    """Run the right program on a healthy memory; what was under way when the error came must not matter."""
    session.break_memory([])
    for name in case.get("instructions", {}):
        await session.load(Unit[name], session.given["instructions"][name])
    session.fill()
    await runs(session, session.given["short"])


async def check_silence(session: Session) -> None:
    """A deadlock is found when nothing has retired for the cycles of the watchdog."""
    await session.write(ControlRegister.COUNTER_SELECT, Counter.CYCLES)
    [cycles] = await session.read(ControlRegister.COUNTER_LOW)
    late = cycles - session.trace.last_end - session.spec.watchdog_cycles
    assert 0 <= late <= 2, f"stopped {late} cycles late"


def compare_trace(unit: Unit, found: list[list[int]], expected: list[list[int]]) -> None:
    """Fail with the first retirement that differs."""
    for number, (ours, theirs) in enumerate(zip(found, expected, strict=False)):
        assert ours == theirs, f"{unit.name}, retirement {number}: RTL {ours}, emulator {theirs}"
    assert len(found) == len(expected), (
        f"{unit.name}: {len(found)} retirements, not {len(expected)}"
    )


def compare_memory(spec: MachineSpec, found: bytes, expected: bytes) -> None:
    """Fail with the first word that differs."""
    assert len(found) == len(expected)
    for word in range(spec.memory.words):
        part = slice(word * spec.word_bytes, (word + 1) * spec.word_bytes)
        ours, theirs = found[part].hex(), expected[part].hex()
        assert ours == theirs, f"memory word {word:#x}: RTL {ours}, emulator {theirs}"


def check_counters(session: Session, values: dict[str, int], run: dict[str, Any]) -> None:
    """Bytes are exact whatever the pace; cycles only bounded."""
    assert (values["bytes_read"], values["bytes_written"]) == (
        run["bytes_read"],
        run["bytes_written"],
    )
    cycles = values["cycles"]
    assert session.trace.last_end < cycles <= session.trace.last_end + 12
    assert cycles > values["bytes_read"] // session.spec.bus_bytes
    for unit in Unit:
        busy, wait = values[f"busy_{unit.name.lower()}"], values[f"wait_{unit.name.lower()}"]
        assert 0 < busy < cycles and 0 < wait < cycles, f"{unit.name}: busy {busy}, wait {wait}"


# ---------------------------------------------------------------------------------------------- tests


@cocotb.test(timeout_time=TEST_LIMIT * CLOCK_STEPS, timeout_unit="step")
@cocotb.parametrize(pace=list(PACES))
async def gives_the_emulators_values(dut: Any, pace: str) -> None:
    session = await Session.start(dut)
    session.pause_memory(pace)
    session.pause_host(pace)
    # Without a reset between them; the second finds the memory as the first left it.
    for run in session.given["runs"]:
        await runs(session, run)
        check_counters(session, await session.counters(), run)
    dut._log.info(f"{pace}: last retirement in cycle {session.trace.last_end}")
    # The interrupt ends with the next start, and with its enable.
    await session.write(ControlRegister.CONTROL, 0)
    await ClockCycles(dut.clk, 2)
    assert not dut.irq.value
    assert (await session.status())[0] == DONE


@cocotb.test(timeout_time=TEST_LIMIT * CLOCK_STEPS, timeout_unit="step")
async def refuses_the_program_of_another_machine(dut: Any) -> None:
    session = await Session.start(dut)
    await session.write(ControlRegister.PROGRAM_HASH, session.spec.hash ^ 1 << 31)
    short = session.given["short"]
    await session.begin(short)
    await session.interrupt(1000)
    assert await session.status() == (DONE | ERROR, [ErrorCode.WRONG_PROGRAM, 0, 0])
    await ClockCycles(dut.clk, 100)
    assert not any(session.trace.entries.values())
    assert await session.read(ControlRegister.IDENTITY) == [session.spec.hash]
    await session.write(ControlRegister.PROGRAM_HASH, session.spec.hash)
    await runs(session, short)


@cocotb.test(timeout_time=TEST_LIMIT * CLOCK_STEPS, timeout_unit="step")
@cocotb.parametrize(pace=["flowing", "slow"])
async def reports_errors_and_restarts(dut: Any, pace: str) -> None:
    session = await Session.start(dut)
    problems = []
    for case in session.given["errors"][pace]:
        for stage in (fails, recovers):
            # The host keeps its speed: it restarts while a slow memory still answers what the error left behind.
            session.pause_memory(pace)
            try:
                await stage(session, case)
            except AssertionError as error:
                problems.append(f"{case['name']}: {stage.__name__}: {error}")
    assert not problems, "\n".join(problems)
