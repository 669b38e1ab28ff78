"""The folder `bench` of `lpu verilog`: a program, what the emulator says of it, and a Makefile that compares.

Everything expected comes from the emulator, before any hardware is simulated. The simulated memory has room
for the program only: its capacity changes nothing but where addresses wrap, and a machine may have more memory
than the computer that simulates it.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from emulator.errors import IllegalInstruction, IllegalProgram
from hw.core.simulation import Simulation
from hw.host import load_script, memory_texts, run_script, timing_script
from hw.spec.errors import InputError
from hw.spec.instructions import LOOP_DEPTH, Unit
from hw.spec.machine import MachineSpec
from hw.spec.registers import ErrorCode, counters
from hw.spec.wires import Wires
from hw.verilog import PROCESSOR, convert
from hw.wires_verilog import wires_verilog
from sim_tests.exactness import Expectation, Request, Trace, expect
from sim_tests.simulate import TOP, VERILOG
from sim_tests.token_program import STORED, TokenProgram

REQUEST = Request(prompt=(3, 1, 2), tokens=3)
STATUS_DONE = 2
"""Value of the register STATUS when a run has ended well."""

MAKEFILE = """\
# `make check` builds the processor with a model of its memory in Verilator, runs a program, and compares with what
# is expected: every retirement, every register that the host reads, every word of the memory.
# Needs Verilator 5 (5.036 or newer) and what it needs itself (perl, python3), a C++ compiler, and make.
VERILATOR ?= verilator
SOURCES = {top}.sv memory_array.v trace_writer.sv harness.cpp
OPTIONS = {options} +trace_file=build/trace.txt

check: build/Vtop
\t@build/Vtop script.txt build/results.txt {limit} $(OPTIONS)
\t@grep -v seconds build/results.txt | cmp - expected_results.txt
\t@cmp build/trace.txt expected_trace.txt
{memories}
\t@echo "PASS: {retirements} retirements, {reads} registers and {words} memory words as expected"

build/Vtop: $(SOURCES)
\t$(VERILATOR) --cc --exe --x-assign fast --x-initial fast --noassert -Wno-fatal -Wno-lint -Wno-style \\
\t  --top-module {top} --prefix Vtop -Mdir build $(abspath $(SOURCES))
\t$(MAKE) -C build -f Vtop.mk CXX=$(CXX) LINK=$(CXX) AR=ar CFG_CXXFLAGS_PCH_I=-include \\
\t  OPT_FAST=-O1 OPT_SLOW=-O0 OPT_GLOBAL=-O1

clean:
\trm -rf build

.PHONY: check clean
"""

README = """\
OpenLPU flight processor, target {target}, machine {hash:08x}

{processor}.sv     the processor; top module {processor}
filelist.f           the Verilog files, for tools that read such a list
summary.json         modules, ports, memories, multipliers; for programs
summary.txt          the same, for people
"""
BENCH_README = """
bench/               `make check` in it runs a small program on the processor, in Verilator, and compares
  Makefile             what is run, and what it needs; no Python packages
  {top}.sv    the processor with trace ports, and a model of its memory beside it
  memory_array.v       content of a memory channel
  trace_writer.sv      writes a line for each instruction that ends
  harness.cpp          plays script.txt
  script.txt           accesses of the host: memory timing, instructions, prompt, start, what is read at the end
  memory*.hex          content of each memory channel before the run, a bus word a line
  expected_trace.txt   a line for each instruction that ends: unit (0 LD, 1 ST, 2 MPE, 3 SFU, 4 SYS; from 5 on those of
                       the next core), program counter, four loop indices, cycle of issue, cycle of end, CRC-32 of
                       what it wrote
  expected_results.txt what the host reads: STATUS, ERROR, LENGTH, performance counters (low and high half),
                       tokens
  expected_memory*.hex content of each memory channel after the run
The expected files were written by the emulator, not recorded from the hardware. The program looks up the
embedding of a token, multiplies it with a matrix, and takes the largest element as the next token. If there are
several cores, each has a part of the embeddings and of the matrix, and memory channels are numbered core by core.
"""


def bench_files(
    spec: MachineSpec, wires: Wires | None = None, networks: str = "counts"
) -> dict[str, str]:
    """Files of a folder in which `make check` runs a program on a machine and compares what it does.

    Hardwired matrices, written as `networks` says, are there, but the program does not use them.

    Raises
    ------
    InputError
        If the program does not fit the machine.
    """
    program = TokenProgram(spec).program
    words = _memory_words(spec)
    expected = _expect(spec, words)
    trace = trace_text([core.trace for core in expected.cores])
    results = results_text(expected)
    files = {
        name: (VERILOG / name).read_text()
        for name in ("memory_array.v", "trace_writer.sv", "harness.cpp")
    }
    options, memories = [], []
    before = memory_texts(spec, program.memory)
    after = memory_texts(spec, np.stack([core.memory for core in expected.cores]))
    for number, (loaded, wanted) in enumerate(zip(before, after, strict=True)):
        files[f"memory{number}.hex"] = loaded
        files[f"expected_memory{number}.hex"] = wanted
        dump = f"build/memory{number}.hex"
        options.append(f"+memory_load_{number}=memory{number}.hex +memory_dump_{number}={dump}")
        # Verilator may begin the file with an address or a comment.
        memories.append(f"\t@grep -v '^[/@]' {dump} | cmp - expected_memory{number}.hex")
    script = timing_script(spec.memory) + load_script(program)
    script += run_script(REQUEST.prompt, REQUEST.tokens, cores=spec.cores)
    return files | {
        f"{TOP}.sv": convert(Simulation(spec, words, wires), TOP)
        + (wires_verilog(spec, wires, networks) if wires else ""),
        "script.txt": "\n".join(script) + "\n",
        "expected_trace.txt": trace,
        "expected_results.txt": results,
        "Makefile": MAKEFILE.format(
            top=TOP,
            options=" ".join(options),
            limit=2 * expected.cycles + spec.watchdog_cycles,
            memories="\n".join(memories),
            retirements=trace.count("\n"),
            reads=results.count("\n"),
            words=words,
        ),
    }


def readme_text(spec: MachineSpec, bench: str | None) -> str:
    """README.txt of the folder; `bench` says why there is no bench, None if there is one."""
    text = README.format(target=spec.name, hash=spec.hash, processor=PROCESSOR)
    return text + (BENCH_README.format(top=TOP) if bench is None else f"\nNo bench: {bench}\n")


def trace_text(traces: Sequence[Trace]) -> str:
    """A line for each retirement, by end cycle, core and unit, as `sim_tests/verilog/trace_writer.sv` writes them."""
    rows = []
    for core, unit in itertools.product(range(len(traces)), Unit):
        for entry in traces[core][unit]:
            indices = [int(index) for index in entry["index"][:LOOP_DEPTH]]
            last = [int(entry[name]) for name in ("issue", "end", "checksum")]
            rows.append([len(Unit) * core + unit, int(entry["pc"]), *indices, *last])
    rows.sort(key=lambda row: (row[-2], row[0]))
    return "".join(" ".join(map(str, row)) + "\n" for row in rows)


def results_text(expected: Expectation) -> str:
    """Values of the reads of `hw.host.run_script`, a line each, decimal."""
    values = [STATUS_DONE, int(ErrorCode.NONE), len(expected.tokens)]
    for core in expected.cores:
        for name, _ in counters():
            values += [core.counters[name] & 0xFFFFFFFF, core.counters[name] >> 32]
    values += [int(token) for token in expected.tokens]
    return "".join(f"{value}\n" for value in values)


def _memory_words(spec: MachineSpec) -> int:
    """Capacity that the program needs, a power of two."""
    used = TokenProgram(spec).output + STORED * (REQUEST.steps + 1)
    return max(spec.burst_beats, 1 << (used - 1).bit_length())


def _expect(spec: MachineSpec, words: int) -> Expectation:
    if words > spec.memory.words or REQUEST.steps + 1 > spec.tokens:
        raise InputError(
            f"target {spec.name}: expected at least {words} words of memory and {REQUEST.steps + 1} tokens, "
            f"found {spec.memory.words} and {spec.tokens}"
        )
    memory = dataclasses.replace(spec.memory, words=words)
    small = TokenProgram(dataclasses.replace(spec, memory=memory))
    longest = max(len(words) for words in small.program.instructions.values())
    if longest > spec.instructions:
        raise InputError(
            f"target {spec.name}: instructions: expected at least {longest}, found {spec.instructions}"
        )
    try:
        expected = expect(small.program, REQUEST)
    except (IllegalProgram, IllegalInstruction) as error:
        raise InputError(f"target {spec.name}: the program does not fit: {error}") from error
    # Computed a second time, in plain arithmetic.
    tokens = small.tokens(list(REQUEST.prompt), REQUEST.tokens)
    if expected.tokens.tolist() != tokens:
        raise RuntimeError(f"emulator: tokens {expected.tokens.tolist()}, expected {tokens}")
    return expected
