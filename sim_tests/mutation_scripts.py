"""Scripts of hosts and memories that do what they like, for trials of mutants."""

import dataclasses
import random

from hw.host import CONTROL_INTERRUPT, load_script, run_script
from hw.spec.instructions import Opcode, encode, instruction_bits
from hw.spec.machine import MachineSpec
from hw.spec.program import Program
from hw.spec.registers import STOP_TOKENS, ControlRegister
from sim_tests.exactness import Expectation
from sim_tests.fuzz_case import FuzzCase

LOOKED_AT = [
    *(ControlRegister.IDENTITY, ControlRegister.PROGRAM_HASH, ControlRegister.CONTROL),
    *(ControlRegister.STATUS, ControlRegister.PROMPT_LENGTH, ControlRegister.STEPS),
    *(
        ControlRegister.STOP_ENABLE,
        ControlRegister.INSTRUCTION_UNIT,
        ControlRegister.COUNTER_SELECT,
    ),
    *(ControlRegister.STOP_TOKEN + 4 * i for i in range(STOP_TOKENS)),
]


FAR_STEPS = 300
"""More than a byte holds, and than there are places for tokens."""


def far_end(rng: random.Random, case: FuzzCase) -> FuzzCase:
    """The program, but each unit jumps to some place behind it, the last one or any other, before it halts."""
    depth = case.program.machine.instructions
    longer = {}
    for unit, words in case.program.instructions.items():
        if len(words) > depth - 2:
            longer[unit] = words
            continue
        place = max(rng.choice([depth - 2, rng.randrange(depth - 1)]), len(words))
        halt = encode(unit, Opcode.HALT)
        jump = encode(unit, Opcode.BRANCH, target=place)
        gap = [halt] * (place - len(words))
        longer[unit] = [*words[:-1], jump, *gap, encode(unit, Opcode.SYNC), halt]
    return dataclasses.replace(case, program=dataclasses.replace(case.program, instructions=longer))


def rewrite_script(rng: random.Random, program: Program) -> list[str]:
    """Writes of some instructions, the last one in part, that were there before: nothing is changed by them."""
    script = []
    for unit, words in program.instructions.items():
        parts = instruction_bits(unit) // 32
        data = [word >> 32 * part & 0xFFFFFFFF for word in words for part in range(parts)]
        script.append(f"write {int(ControlRegister.INSTRUCTION_UNIT)} {int(unit)}")
        count = rng.randrange(len(words)) * parts + rng.randrange(1, parts)
        script += [f"write {int(ControlRegister.INSTRUCTION_DATA)} {word}" for word in data[:count]]
    return script


def let_run_end() -> list[str]:
    """Wait for the end of whatever was begun, the interrupt enabled; a start that is refused if it was nothing."""
    writes = [(ControlRegister.PROGRAM_HASH, 0), (ControlRegister.CONTROL, CONTROL_INTERRUPT | 1)]
    return [*(f"access 1 {int(r)} {value} 15 0 0 0 0 0" for r, value in writes), "run"]


def accesses(rng: random.Random, spec: MachineSpec, count: int) -> list[str]:
    """Random accesses to registers and to what is none, whole and partial, in all orders and with all waits."""
    known = [int(register) for register in ControlRegister]
    known += [ControlRegister.STOP_TOKEN + 4 * i for i in range(STOP_TOKENS)]
    tokens = int(ControlRegister.TOKENS)

    def address() -> int:
        places = [
            rng.choice(known),
            rng.choice(known) + rng.randrange(4),
            tokens + 4 * rng.randrange(spec.tokens),
            rng.choice(known) ^ 1 << rng.randrange(16),
            rng.getrandbits(16),
        ]
        return rng.choices(places, [6, 1, 3, 1, 1])[0] & 0xFFFF

    lines = []
    for _ in range(count):
        writes = rng.choice([1, 1, 2, 3]) if rng.random() < 0.6 else 0
        reads = rng.choice([1, 1, 2]) if not writes or rng.random() < 0.4 else 0
        data = rng.choice([rng.getrandbits(32), rng.randrange(8), 1 << rng.randrange(32)])
        strobe = 15 if rng.random() < 0.8 else rng.randrange(16)
        numbers = [writes, address(), data, strobe, rng.choice([0, 0, 0, 1, 3, -1, -2])]
        numbers += [reads, address(), rng.choice([0, 0, 1, 2, 5]), rng.choice([0, 0, 1, 2, 7])]
        lines.append("access " + " ".join(map(str, numbers)))
    return lines


def host_script(rng: random.Random, case: FuzzCase) -> list[str]:
    """Accesses of all kinds before a run, in it and behind it."""
    request, program = case.request, case.program
    run = run_script(request.prompt, request.tokens, request.stop_tokens)
    start = run.index("run")
    script = accesses(rng, program.machine, 60) + let_run_end()
    script += load_script(program) + rewrite_script(rng, program) + run[:start]
    script += accesses(rng, program.machine, 30)
    # Whatever was switched off or begun in between.
    script += [*let_run_end(), *run[start:]]
    script += accesses(rng, program.machine, 60) + let_run_end()
    return script + load_script(program) + run + [f"read {int(register)}" for register in LOOKED_AT]


def stop_scripts(case: FuzzCase, expected: Expectation) -> list[list[str]]:
    """Runs that end with the first token that is generated, found by each of the stop tokens alone."""
    request = case.request
    begin = len(request.prompt)
    if len(expected.tokens) <= begin:
        return []
    token = int(expected.tokens[begin])
    scripts = []
    for number in range(STOP_TOKENS):
        stops = [token ^ (1 + other) for other in range(number)]
        run = run_script(request.prompt, request.tokens, [*stops, token])
        enable = f"write {int(ControlRegister.STOP_ENABLE)} {1 << number}"
        scripts.append([*load_script(case.program), *_instead(run, enable)])
    return scripts


def far_script(rng: random.Random, case: FuzzCase) -> list[str]:
    """A run of more steps than there are places for tokens, the prompt as long as no program expects it."""
    request = case.request
    run = run_script(request.prompt, request.tokens, request.stop_tokens)
    for register, value in (
        (ControlRegister.STOP_ENABLE, 0),
        (ControlRegister.STEPS, FAR_STEPS),
        (
            ControlRegister.PROMPT_LENGTH,
            rng.choice([rng.randrange(FAR_STEPS), rng.getrandbits(20)]),
        ),
    ):
        run = _instead(run, f"write {int(register)} {value}")
    return [*load_script(case.program), *run]


def _instead(run: list[str], write: str) -> list[str]:
    """The script with another value written to a register."""
    begin = write.rpartition(" ")[0] + " "
    return [write if line.startswith(begin) else line for line in run]


def silent_script(
    rng: random.Random, case: FuzzCase, expected: Expectation, late: int
) -> list[str]:
    """A memory that does not answer from some time of a run on, until `late` cycles after the start of the next."""
    request = case.request
    run = run_script(request.prompt, request.tokens, request.stop_tokens)
    start = run.index("run")
    script = [*load_script(case.program), *run[:start]]
    script += [f"wait {rng.randrange(max(1, expected.cycles))}", "fault stall 1", *run[start:]]
    return [*script, *run[:start], f"wait {late}", "fault stall 0", *run[start:], *run]


def reset_script(rng: random.Random, case: FuzzCase, expected: Expectation) -> list[str]:
    """A reset in a run and another behind one; registers are read after each, then the program runs again."""
    request = case.request
    run = run_script(request.prompt, request.tokens, request.stop_tokens)
    start = run.index("run")
    look = [f"read {int(register)}" for register in LOOKED_AT]
    look += run[start + 1 :]
    within = [*run[:start], f"wait {rng.randrange(max(1, expected.cycles))}", "reset", *look]
    load = load_script(case.program)
    return [*load, *within, *load, *run, "reset", *look, *load, *run]
