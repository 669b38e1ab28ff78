"""What a host does to run a program: a script of register accesses, and memory images as text.

A script is played by `sim_tests.simulate` and by the bench of `lpu verilog`; its lines are::

    timing NAME VALUE    set a timing input of the memory model
    write ADDRESS DATA   AXI4-Lite write
    run                  wait for the interrupt
    read ADDRESS         AXI4-Lite read
"""

from collections.abc import Sequence

import numpy as np

from hw.spec.instructions import Unit, instruction_bits
from hw.spec.machine import MachineSpec, MemorySpec
from hw.spec.program import Program
from hw.spec.registers import ControlRegister, counters

CONTROL_START = 1
CONTROL_INTERRUPT = 2


def load_script(program: Program) -> list[str]:
    """Writes that load the instructions."""
    script = [_write(ControlRegister.PROGRAM_HASH, program.machine_hash)]
    for unit in Unit:
        script.append(_write(ControlRegister.INSTRUCTION_UNIT, int(unit)))
        for word in program.instructions.get(unit, []):
            for part in range(instruction_bits(unit) // 32):
                script.append(
                    _write(ControlRegister.INSTRUCTION_DATA, word >> 32 * part & 0xFFFFFFFF)
                )
    return script


def run_script(
    prompt: Sequence[int], tokens: int, stop_tokens: Sequence[int] = (), cores: int = 1
) -> list[str]:
    """Accesses that run the loaded program, then read STATUS, ERROR, LENGTH, all counters and the tokens.

    Parameters
    ----------
    prompt : sequence of int
        Token ids.
    tokens : int
        Tokens to generate.
    stop_tokens : sequence of int
        Token ids that end the sequence.
    cores : int
        Cores of the machine; counters are read core by core.
    """
    script = [
        _write(ControlRegister.PROMPT_LENGTH, len(prompt)),
        _write(ControlRegister.STEPS, len(prompt) + tokens - 1),
        _write(ControlRegister.STOP_ENABLE, (1 << len(stop_tokens)) - 1),
    ]
    script += [
        _write(ControlRegister.STOP_TOKEN + 4 * i, int(token))
        for i, token in enumerate(stop_tokens)
    ]
    script += [_write(ControlRegister.TOKENS + 4 * i, int(token)) for i, token in enumerate(prompt)]
    script += [_write(ControlRegister.CONTROL, CONTROL_START | CONTROL_INTERRUPT), "run"]
    script += [
        _read(r) for r in (ControlRegister.STATUS, ControlRegister.ERROR, ControlRegister.LENGTH)
    ]
    for _, number in counters(cores):
        script.append(_write(ControlRegister.COUNTER_SELECT, number))
        script += [_read(ControlRegister.COUNTER_LOW), _read(ControlRegister.COUNTER_HIGH)]
    return script + [_read(ControlRegister.TOKENS + 4 * i) for i in range(len(prompt) + tokens)]


def timing_script(timing: MemorySpec) -> list[str]:
    """Lines that set the timing of the memory model."""
    names = (
        "read_latency",
        "write_latency",
        "activate",
        "turnaround",
        "refresh_interval",
        "refresh_cycles",
    )
    values = {
        name: getattr(timing, name) for name in (*names, "beat_numerator", "beat_denominator")
    }
    values |= {
        "bank_bits": timing.banks.bit_length() - 1,
        "row_bits": timing.row_words.bit_length() - 1,
    }
    return [f"timing {name} {value}" for name, value in values.items()]


def memory_texts(spec: MachineSpec, memory: np.ndarray) -> list[str]:
    """Each channel's part of a memory image, for $readmemh; channel by channel of core 0, then of the next core.

    `memory` is uint8 [words, word_bytes], or [cores, words, word_bytes].
    """
    images = memory.reshape(-1, *memory.shape[-2:])
    texts = []
    for image in images:
        for start in range(0, spec.word_bytes, spec.bus_bytes):
            part = image[:, start : start + spec.bus_bytes]
            texts.append(part[:, ::-1].tobytes().hex("\n", spec.bus_bytes) + "\n")
    return texts


def _write(register: int, value: int) -> str:
    return f"write {int(register)} {value}"


def _read(register: int) -> str:
    return f"read {int(register)}"
