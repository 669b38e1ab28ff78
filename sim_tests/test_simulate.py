"""Runs programs on the whole processor under both engines, and compares what they leave behind."""

import functools
import sys
from pathlib import Path

import numpy as np
import pytest

from emulator.timing import RECORD_END, RECORD_ISSUE, RECORD_PC, TimingEngine
from hw.spec.errors import InputError
from hw.spec.instructions import Opcode, Unit, encode
from hw.spec.machine_file import load_machine
from hw.spec.program import Program
from hw.spec.registers import ErrorCode
from sim_tests import wave_view
from sim_tests.fst import fst_from_pipe
from sim_tests.run_result import SimulationResult
from sim_tests.simulate import ENGINES, simulate
from sim_tests.token_program import STORED, TokenProgram
from sim_tests.wave_view import write_views

PROMPT, GENERATED = [3, 1, 2], 5


@functools.cache
def _run(target: str, engine: str) -> tuple[TokenProgram, SimulationResult]:
    token_program = TokenProgram(load_machine(target))
    result = simulate(
        token_program.spec, token_program.program, PROMPT, GENERATED, engine, limit=100_000
    )
    return token_program, result


@pytest.mark.parametrize("engine", ENGINES)
def test_generates_tokens_and_stores_logits(engine: str) -> None:
    expected, result = _run("tiny", engine)
    tokens = expected.tokens(PROMPT, GENERATED)
    assert result.error.code == ErrorCode.NONE
    assert result.tokens.tolist() == tokens
    lanes = expected.spec.lanes
    for position, token in enumerate(tokens[:-1]):
        address = expected.output + STORED * position
        stored = result.memory[address : address + STORED].view(np.float32)[:, 0]
        assert stored.tolist() == expected.logits(token)[[0, lanes]].tolist()
    # The rest of the memory is untouched.
    words = len(expected.program.memory)
    assert np.array_equal(result.memory[:words], expected.program.memory)
    assert not result.memory[words + STORED * (len(tokens) - 1) :].any()


def test_both_engines_agree() -> None:
    native, with_cocotb = (_run("tiny", engine)[1] for engine in ENGINES)
    assert native.cycles == with_cocotb.cycles
    assert native.counters == with_cocotb.counters
    for unit in Unit:
        assert np.array_equal(native.trace[unit], with_cocotb.trace[unit])


def test_counters_agree_with_the_trace() -> None:
    expected, result = _run("tiny", "native")
    positions = PROMPT + [0] * (GENERATED - 1)
    words = expected.embedding_words + expected.weight_words
    assert result.counters["bytes_read"] == len(positions) * words * expected.spec.bus_bytes
    assert result.counters["bytes_written"] == len(positions) * STORED * expected.spec.bus_bytes
    for unit in (Unit.ST, Unit.MPE, Unit.SFU, Unit.SYS):
        entries = result.trace[unit]
        assert (
            result.counters[f"busy_{unit.name.lower()}"]
            == (entries["end"] - entries["issue"]).sum()
        )
    last = max(entries["end"].max() for entries in result.trace.values())
    # Behind the last end, SYS still has to fetch its HALT at most.
    assert last < result.cycles <= last + 12


def test_stop_token_ends_the_sequence() -> None:
    expected, _ = _run("tiny", "native")
    tokens = expected.tokens(PROMPT, GENERATED)
    stop = tokens[len(PROMPT) + 1]
    first = tokens.index(stop, len(PROMPT))
    result = simulate(
        expected.spec, expected.program, PROMPT, GENERATED, stop_tokens=[63, stop], limit=100_000
    )
    assert result.tokens.tolist() == tokens[: first + 1]


def _errors() -> dict[str, tuple[dict[Unit, list[int]], ErrorCode, Unit, int]]:
    halt = {unit: [encode(unit, Opcode.HALT)] for unit in Unit}
    sync = encode(Unit.SFU, Opcode.SYNC)
    signal = encode(Unit.ST, Opcode.SYNC, signal=1 << Unit.MPE)
    again = encode(Unit.ST, Opcode.BRANCH)
    return {
        "opcode": (halt | {Unit.SFU: [sync, 0]}, ErrorCode.ILLEGAL_INSTRUCTION, Unit.SFU, 1),
        "no loop": (
            halt | {Unit.MPE: [encode(Unit.MPE, Opcode.END_LOOP)]},
            ErrorCode.ILLEGAL_INSTRUCTION,
            Unit.MPE,
            0,
        ),
        "count of zero": (
            halt | {Unit.LD: [encode(Unit.LD, Opcode.SYNC), encode(Unit.LD, Opcode.EXECUTE)]},
            ErrorCode.ILLEGAL_INSTRUCTION,
            Unit.LD,
            1,
        ),
        "no halt": (
            halt | {Unit.SYS: [encode(Unit.SYS, Opcode.BRANCH, target=300)]},
            ErrorCode.PROGRAM_COUNTER,
            Unit.SYS,
            300,
        ),
        "token overflow": (halt | {Unit.ST: [signal, again]}, ErrorCode.TOKEN_OVERFLOW, Unit.LD, 0),
        "deadlock": (
            halt | {Unit.ST: [encode(Unit.ST, Opcode.SYNC, wait=1)]},
            ErrorCode.DEADLOCK,
            Unit.LD,
            0,
        ),
    }


@pytest.mark.parametrize("case", list(_errors()))
def test_errors_stop_the_run(case: str) -> None:
    spec = load_machine("tiny")
    instructions, error, unit, pc = _errors()[case]
    program = Program(spec, instructions, np.zeros((1, spec.word_bytes), np.uint8))
    result = simulate(spec, program, [1], 1, limit=200_000)
    assert result.error == (error, 0, unit, pc)
    if error == ErrorCode.DEADLOCK:
        assert result.cycles > spec.watchdog_cycles


def test_cycles_are_those_of_the_emulator() -> None:
    expected, result = _run("tiny", "native")
    timed = TimingEngine(expected.program).run(len(PROMPT), GENERATED, record=True)
    assert result.cycles == timed.cycles
    for unit in Unit:
        records, entries = timed.records[unit], result.trace[unit]
        assert records[:, RECORD_PC].tolist() == entries["pc"].tolist()
        assert records[:, RECORD_ISSUE].tolist() == entries["issue"].tolist()
        assert records[:, RECORD_END].tolist() == entries["end"].tolist()
        assert result.counters[f"busy_{unit.name.lower()}"] == timed.busy[unit]
        assert result.counters[f"wait_{unit.name.lower()}"] == timed.waited[unit]


def _declared(vcd: str) -> dict[str, int]:
    """Width of each signal that a VCD file declares, by hierarchical name."""
    scopes: list[str] = []
    found = {}
    for line in vcd.partition("$enddefinitions")[0].splitlines():
        match line.split():
            case ["$scope", _, name, "$end"]:
                scopes.append(name)
            case ["$upscope", "$end"]:
                scopes.pop()
            case ["$var", _, width, _, name, *_]:
                found[".".join([*scopes, name])] = int(width)
    return found


def test_a_wave_holds_the_signals_of_the_lists_beside_it(tmp_path: Path) -> None:
    token_program = TokenProgram(load_machine("tiny"))
    wave = tmp_path / "run.vcd"
    result = simulate(token_program.spec, token_program.program, [3], 1, wave=wave, limit=100_000)
    content = wave.read_text()
    declared = _declared(content)
    gtkwave, surfer = write_views(wave, token_program.spec)
    listed = [line for line in gtkwave.read_text().splitlines() if line.startswith("lpu_")]
    commands = surfer.read_text().splitlines()
    for line in listed:
        name, _, high = line.rstrip("]").partition("[")
        assert declared[name] == (int(high.partition(":")[0]) + 1 if high else 1), name
        assert f"variable_add {name}" in commands
    assert {"lpu_simulation.clk", "lpu_simulation.processor.trace_sfu_checksum"} <= {
        line.partition("[")[0] for line in listed
    }
    # A time stamp for each edge of the run.
    assert content.count("\n#") > 2 * result.cycles


@pytest.mark.parametrize("engine", ["native", pytest.param("cocotb", marks=pytest.mark.slow)])
def test_a_wave_as_fst_says_what_the_vcd_says(tmp_path: Path, engine: str) -> None:
    pytest.importorskip("pylibfst", reason="FST waves are written by pylibfst (extra `sim`)")
    token_program = TokenProgram(load_machine("tiny"))
    arguments = (token_program.spec, token_program.program, [3], 1, engine)
    for suffix in ("vcd", "fst"):
        simulate(*arguments, wave=tmp_path / f"run.{suffix}", limit=100_000)
    names, changes = _read_fst(tmp_path / "run.fst")
    content = (tmp_path / "run.vcd").read_text()
    assert {name.partition(" ")[0] for name in names} == set(_declared(content))
    assert changes == _changes(content, names)


def _read_fst(path: Path) -> tuple[dict[str, int], dict[int, list[tuple[int, str]]]]:
    """Handles of all signals by name; times and values of each handle."""
    import pylibfst

    file = pylibfst.lib.fstReaderOpen(str(path).encode())
    signals = pylibfst.get_scopes_signals2(file)[1].by_name
    changes: dict[int, list[tuple[int, str]]] = {}

    def seen(_: object, time: int, handle: int, value: object) -> None:
        changes.setdefault(handle, []).append((time, pylibfst.string(value)))

    pylibfst.lib.fstReaderSetFacProcessMaskAll(file)
    pylibfst.fstReaderIterBlocks(file, seen)
    pylibfst.lib.fstReaderClose(file)
    return {name: signal.handle for name, signal in signals.items()}, changes


def _changes(content: str, names: dict[str, int]) -> dict[int, list[tuple[int, str]]]:
    """Times and values by the handles that FST gave the same signals."""
    handles: dict[str, tuple[int, int]] = {}
    scopes: list[str] = []
    time = 0
    result: dict[int, list[tuple[int, str]]] = {}
    for line in content.splitlines():
        match line.split():
            case ["$scope", _, name, "$end"]:
                scopes.append(name)
            case ["$upscope", "$end"]:
                scopes.pop()
            case ["$var", _, width, code, *name, "$end"]:
                handles[code] = (names[".".join([*scopes, " ".join(name)])], int(width))
            case [stamp] if stamp.startswith("#"):
                time = int(stamp[1:])
            case [value, code] if value.startswith("b"):
                handle, width = handles[code]
                result.setdefault(handle, []).append((time, value[1:].zfill(width)))
            case [bit] if bit[0] in "01":
                result.setdefault(handles[bit[1:]][0], []).append((time, bit[0]))
    return result


@pytest.mark.parametrize(
    "name, message", [("run.wav", "ends with .vcd or .fst"), ("run.fst", "pylibfst")]
)
def test_a_wave_that_cannot_be_written_is_refused(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pylibfst", None)
    with pytest.raises(InputError, match=message):
        wave_view.check_wave(Path(name))


def test_a_program_that_writes_no_wave_does_not_hang_its_reader(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="without an end of its definitions"),
        fst_from_pipe(tmp_path / "dump.vcd", tmp_path / "run.fst"),
    ):
        pass
