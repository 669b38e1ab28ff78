"""Runs a compiled model on the whole processor beside memory and host models that this project did not write."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import pytest

from emulator import sequencer
from emulator.machine import Machine
from hw.spec.instructions import LOOP_DEPTH, Opcode, Pattern, Register, Unit, decode, encode
from hw.spec.program import Program
from hw.spec.registers import ErrorCode
from mapping.compiler import compile_model
from mapping.frontend.config import LLAMA, ModelConfig
from mapping.frontend.model import synthetic_model
from mapping.recipe import load_recipe
from sim_tests.bench import run_bench
from sim_tests.exactness import Request, entries_of, expect
from sim_tests.instruction_text import evaluate_operation
from sim_tests.processor_system import processor_netlist, shallow_machine

BENCH = "sim_tests.bench_processor_axi"
RECIPES = {"tiny": "w4a8", "small": "w8a8"}
CONTEXT = 16
SHORT = Request((5,), 1)
RUNS = (Request((3, 1, 30), 3), Request((7, 36, 7, 2), 2))

# No width is a multiple of anything.
CONFIG = ModelConfig(
    name="odd",
    architecture=LLAMA,
    hidden_size=20,
    intermediate_size=27,
    layers=1,
    heads=2,
    kv_heads=1,
    head_dim=10,
    vocabulary_size=37,
    rms_norm_eps=1e-5,
    rope_theta=1e4,
    tie_word_embeddings=False,
    maximum_positions=CONTEXT,
    bos_token_ids=(0,),
    eos_token_ids=(0,),
    activation="silu",
)


@functools.cache
def _program(target: str) -> Program:
    model = synthetic_model(CONFIG, seed=7)
    return compile_model(model, shallow_machine(target), load_recipe(RECIPES[target]), CONTEXT)


def _expected(program: Program, request: Request) -> tuple[dict[str, Any], Program]:
    """What a run must give, and the program with the memory that it leaves behind."""
    expected = expect(program, request)
    trace = {
        unit.name: [[int(e["pc"]), *map(int, e["index"]), int(e["checksum"])] for e in entries]
        for unit, entries in expected.trace.items()
    }
    # Another order of units, so that nothing above rests on the one that the emulator likes best.
    state, _ = Machine(program, order=tuple(reversed(Unit))).run(
        list(request.prompt), request.tokens
    )
    assert (state.memory == expected.memory).all()
    run = {
        "prompt": request.prompt,
        "tokens": request.tokens,
        "expected_tokens": expected.tokens.tolist(),
        "trace": trace,
        "memory": expected.memory.tobytes().hex(),
        "bytes_read": expected.counters["bytes_read"],
        "bytes_written": expected.counters["bytes_written"],
    }
    return run, dataclasses.replace(program, memory=expected.memory)


def _parameters(target: str) -> dict[str, Any]:
    program = _program(target)
    runs, later = [], program
    for request in RUNS:
        run, later = _expected(later, request)
        runs.append(run)
    generated = [token for run in runs for token in run["expected_tokens"][len(run["prompt"]) :]]
    assert len(set(generated)) == len(generated), "a model that repeats itself shows little"
    return {
        "spec": program.machine.to_dict(),
        "instructions": {unit.name: words for unit, words in program.instructions.items()},
        "memory": program.memory.tobytes().hex(),
        "runs": runs,
        "short": _expected(program, SHORT)[0],
    }


# ------------------------------------------------------------------------------------------ errors


BROKEN = Request(RUNS[0].prompt, 1)
"""What is asked of a broken program, or on a broken memory."""


def _case(name: str, code: ErrorCode, unit: Unit, pc: int, **more: Any) -> dict[str, Any]:
    expected = [code.name, unit.name, pc]
    return {
        "name": name,
        "expected": expected,
        "prompt": BROKEN.prompt,
        "tokens": BROKEN.tokens,
        **more,
    }


def _transfers(program: Program, unit: Unit) -> list[tuple[int, list[int]]]:
    """Program counter and words of every transfer of LD or ST at the first position."""
    transfers = []
    for entry in entries_of(program, unit, BROKEN, BROKEN.steps):
        fields = decode(unit, program.instructions[unit][entry[sequencer.PC]])
        if entry[sequencer.POSITION] or fields["opcode"] != Opcode.EXECUTE:
            continue
        indices = [int(i) for i in entry[sequencer.INDEX : sequencer.INDEX + LOOP_DEPTH]]
        registers = {
            Register.PROMPT_LENGTH: len(BROKEN.prompt),
            Register.STEPS: BROKEN.steps,
            Register.TOKEN: BROKEN.prompt[0],
        }
        operation = evaluate_operation(unit, fields, indices, registers)
        transfers.append((int(entry[sequencer.PC]), _words(unit, operation)))
    return transfers


def _words(unit: Unit, operation: dict[str, int]) -> list[int]:
    """Words that a transfer touches, first to last."""
    start = operation["address"]
    if unit == Unit.LD:
        return list(range(start, start + operation["length"]))
    length = {Pattern.COLUMN: 2 * operation["steps"], Pattern.SPREAD: 2, Pattern.SCALAR: 1}
    beats = length[Pattern(operation["pattern"])]
    rows = range(
        start, start + operation["rows"] * operation["pitch"] + 1, max(1, operation["pitch"])
    )
    return [row + beat for row in rows[: operation["rows"]] for beat in range(beats)]


def _memory_errors(program: Program) -> Iterator[dict[str, Any]]:
    """Error responses to the first and last beat of loads, on one channel alone, and to stores."""
    channels = range(program.machine.channels)
    loads = _transfers(program, Unit.LD)
    seen: set[int] = set()
    for number, (pc, words) in enumerate(loads):
        if number in {0, len(loads) // 2, len(loads) - 1} and not seen & set(words):
            for place, word in (("first", words[0]), ("last", words[-1])):
                name = f"read {number}, {place} word"
                faults = [["read", channels[-1], word]]
                yield _case(name, ErrorCode.READ_RESPONSE, Unit.LD, pc, faults=faults)
        seen |= set(words)
    stores = _transfers(program, Unit.ST)
    for number in (0, len(stores) - 1):
        pc, words = stores[number]
        faults = [["write", channel, word] for channel in channels for word in words]
        yield _case(f"write {number}", ErrorCode.WRITE_RESPONSE, Unit.ST, pc, faults=faults)
    silent = {"faults": [["silence", channels[-1], 0]]}
    yield _case("memory that does not answer", ErrorCode.DEADLOCK, Unit.LD, 0, **silent)


def _with(program: Program, unit: Unit, pc: int, word: int) -> dict[str, Any]:
    words = list(program.instructions[unit])
    words[pc] = word
    return {"instructions": {unit.name: words}}


def _program_errors(program: Program) -> Iterator[dict[str, Any]]:
    """Instructions that are wrong in themselves, or that never get their token."""
    # The last unit instruction of the first position: all units are at work when it comes.
    last: dict[Unit, int] = {}
    for unit in Unit:
        for entry in entries_of(program, unit, BROKEN, BROKEN.steps):
            if entry[sequencer.POSITION] == 0:
                last[unit] = int(entry[sequencer.PC])
    illegal = ErrorCode.ILLEGAL_INSTRUCTION
    for unit, opcode in zip(Unit, (0, 9, 15, 12, 0), strict=True):
        more = _with(program, unit, last[unit], opcode)
        yield _case(f"opcode {opcode}", illegal, unit, last[unit], **more)
    for unit in (Unit.LD, Unit.ST, Unit.MPE, Unit.SFU):
        more = _with(program, unit, last[unit], encode(unit, Opcode.EXECUTE))
        yield _case(f"{unit.name} of nothing", illegal, unit, last[unit], **more)
    room = program.machine.instructions
    endless = {Unit.SYS.name: [encode(Unit.SYS, Opcode.SYNC)] * room}
    yield _case("no halt", ErrorCode.PROGRAM_COUNTER, Unit.SYS, room, instructions=endless)
    away = _with(program, Unit.MPE, last[Unit.MPE], encode(Unit.MPE, Opcode.BRANCH, target=4095))
    yield _case("branch", ErrorCode.PROGRAM_COUNTER, Unit.MPE, 4095, **away)
    flood = [encode(Unit.ST, Opcode.SYNC, signal=1 << Unit.SYS), encode(Unit.ST, Opcode.BRANCH)]
    more = {"instructions": {Unit.ST.name: flood}}
    yield _case("flood of tokens", ErrorCode.TOKEN_OVERFLOW, Unit.LD, 0, **more)
    words = program.instructions[Unit.SFU]
    pc = max(i for i, word in enumerate(words) if decode(Unit.SFU, word)["signal"] >> Unit.SYS & 1)
    fields = decode(Unit.SFU, words[pc])
    fields["signal"] ^= 1 << Unit.SYS
    mute = encode(Unit.SFU, Opcode(fields.pop("opcode")), **fields)
    more = _with(program, Unit.SFU, pc, mute)
    yield _case("token that never comes", ErrorCode.DEADLOCK, Unit.LD, 0, **more)


@pytest.mark.parametrize("target", list(RECIPES))
def test_processor_on_foreign_models(target: str) -> None:
    program = _program(target)
    memory_errors = list(_memory_errors(program))
    # Which instruction is wrong makes no difference to the memory, so one shape and one pace will do.
    program_errors = list(_program_errors(program)) if target == "tiny" else []
    errors = {"flowing": [*memory_errors, *program_errors], "slow": memory_errors}
    parameters = _parameters(target) | {"errors": errors}
    netlist = processor_netlist(program.machine)
    result = run_bench(f"processor_axi_{target}", netlist, BENCH, parameters=parameters)
    assert result.tests == 6
