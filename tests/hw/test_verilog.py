"""The generated Verilog: names, sharing of modules, memories with contents, lint."""

import dataclasses
import functools
import re
import subprocess

import pytest
from amaranth.hdl import Module, Signal, Value
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hw.core.checksum import Checksum
from hw.core.matrix_row import MatrixRow
from hw.core.restart import restart_domain
from hw.core.tokens import Tokens
from hw.sharing import MANY, repeated
from hw.spec.cascade import rows_together
from hw.spec.instructions import Unit
from hw.spec.machine_file import load_machine
from hw.verilog import LINT_OFF, PROCESSOR, convert, generate_verilog
from hw.verilog_files import summarize

toolchain = pytest.importorskip("sim_tests.toolchain", reason="needs the extra `sim`")


@functools.cache
def _processor() -> str:
    return generate_verilog(load_machine("tiny"))


class Inverter(wiring.Component):
    """One register behind an inverter, of `width` bits."""

    i: Value
    o: Value

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__({"i": In(width), "o": Out(width)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.o.eq(~self.i)
        return m


class Chain(wiring.Component):
    """Inverters of some widths, and a table."""

    i: Value
    o: Value

    def __init__(self, widths: list[int]) -> None:
        self.widths = widths
        super().__init__({"i": In(8), "o": Out(8)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        value = self.i
        for width in self.widths:
            inverter = Inverter(width)
            m.submodules += inverter
            m.d.comb += inverter.i.eq(value)
            value = Signal(8)
            m.d.comb += value.eq(inverter.o)
        m.submodules.table = table = memory.Memory(shape=8, depth=4, init=[0, 0x5A, 3, 0])
        m.submodules.scratch = scratch = memory.Memory(shape=8, depth=4, init=[])
        read, write = table.read_port(), scratch.write_port()
        kept = scratch.read_port()
        m.d.comb += [
            read.addr.eq(value[:2]),
            write.addr.eq(value[2:4]),
            write.data.eq(read.data),
            write.en.eq(1),
            kept.addr.eq(value[4:6]),
            self.o.eq(kept.data),
        ]
        return m


def test_equal_components_share_a_module() -> None:
    text = convert(Chain([8, 8, 4]), "chain")
    assert len(re.findall(r"^module lpu_inverter(?:_\d+)?\(", text, re.MULTILINE)) == 2
    instances = re.findall(r"^  lpu_inverter(?:_\d+)? \w+ \($", text, re.MULTILINE)
    assert len(instances) == 3


def test_modules_that_differ_are_named_after_submodules() -> None:
    names = re.findall(r"^module (\w+)", _processor(), re.MULTILINE)
    assert len(names) == len(set(names))
    assert {"lpu_buffer_vector_buffer", "lpu_vector_operand_a", "lpu_matrix_row"} < set(names)
    assert not [name for name in names if re.search(r"_\d+$|module", name)]


def test_only_memories_with_contents_are_initialized() -> None:
    text = convert(Chain([8]), "chain")
    assert len(re.findall(r"\binitial begin", text)) == 1
    assert re.search(r"\[1\] = 8'h5a;", text)


def test_sequencers_are_named_after_their_unit() -> None:
    for unit in Unit:
        assert f"\nmodule lpu_sequencer_{unit.name.lower()}(" in _processor()


def test_ports_have_the_names_that_tools_recognize() -> None:
    ports = {port["name"]: port for port in summarize(load_machine("tiny"), _processor())["ports"]}
    assert ports["m_axi_0_araddr"] == {"name": "m_axi_0_araddr", "direction": "output", "bits": 40}
    assert ports["s_axi_awaddr"] == {"name": "s_axi_awaddr", "direction": "input", "bits": 16}
    assert {"clk", "rst", "irq"} < ports.keys()
    assert not any("__" in name or name.startswith("trace") for name in ports)


def test_summary_counts_multipliers_and_memories() -> None:
    spec = load_machine("tiny")
    summary = summarize(spec, _processor())
    assert summary["top"] == PROCESSOR
    # One 8x8 multiplier for each INT4 weight of a step, and some for scales beside them.
    assert summary["multipliers_by_module"]["lpu_matrix_row"] >= spec.multipliers
    vectors = [
        m
        for m in summary["memories"]
        if (m["rows"], m["bits"]) == (spec.vector_rows, 32 * spec.lanes)
    ]
    assert vectors and vectors[0]["copies"] >= 3


def test_verilog_passes_lint(tmp_path) -> None:
    if toolchain.find_tool("verilator") is None:
        pytest.skip("verilator is not installed")
    file = tmp_path / f"{PROCESSOR}.sv"
    file.write_text(_processor())
    command = [
        toolchain.find_tool("verilator"),
        "--lint-only",
        "-Wall",
        *(f"-Wno-{name}" for name in LINT_OFF),
    ]
    done = subprocess.run(
        [*command, "--top-module", PROCESSOR, str(file)],
        env=toolchain.tool_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_tokens_have_a_counter_for_every_pair() -> None:
    text = convert(Tokens(), "tokens")
    assert len(set(re.findall(r"reg \[7:0\] (\w+_to_\w+) ", text))) == 25


class Many(wiring.Component):
    """Inverters side by side, reset by `restart`, all of one module."""

    i: Value
    o: Value
    restart: Value

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__({"i": In(8), "o": Out(8), "restart": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        run = restart_domain(m, "run", self.restart)
        value: Value = self.i
        for _ in range(self.count):
            inverter = Counted(8)
            m.submodules += run(repeated(inverter, platform, self.count))
            m.d.comb += inverter.i.eq(value)
            value = inverter.o
        m.d.comb += self.o.eq(value)
        return m


class Counted(Inverter):
    """An inverter that counts how often one was elaborated."""

    elaborated = 0

    def elaborate(self, platform: object) -> Module:
        Counted.elaborated += 1
        return super().elaborate(platform)


@pytest.mark.parametrize("count, elaborated", [(MANY - 1, MANY - 1), (MANY, 1)])
def test_many_equal_components_are_elaborated_once(count: int, elaborated: int) -> None:
    Counted.elaborated = 0
    text = convert(Many(count), "many")
    assert Counted.elaborated == elaborated
    modules = re.findall(r"^module (\w+)", text, re.MULTILINE)
    assert sorted(modules) == ["lpu_counted", "many"]
    assert len(re.findall(r"^  lpu_counted \w+ \($", text, re.MULTILINE)) == count
    assert len(re.findall(r"run_rst = .*restart;", text)) == 1
    assert len(re.findall(r"rst\(run_rst\)", text)) == count


class Mixed(Many):
    """As many of 4 bits beside them."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for width in (8, 4):
            for number in range(self.count):
                inverter = Counted(width)
                m.submodules[f"w{width}_{number}"] = repeated(inverter, platform, self.count)
                m.d.comb += inverter.i.eq(self.i)
                if number == 0:
                    m.d.comb += self.o[width - 4 :][:4].eq(inverter.o)
        return m


def test_components_of_other_parameters_are_other_modules() -> None:
    Counted.elaborated = 0
    text = convert(Mixed(MANY), "mixed")
    assert Counted.elaborated == 2
    assert len(re.findall(r"^module lpu_counted", text, re.MULTILINE)) == 2
    assert len(re.findall(r"^  lpu_counted\w* w[48]_\d+ \($", text, re.MULTILINE)) == 2 * MANY


@pytest.mark.parametrize("columns, sparse", [(1, 0), (2, 1)])
def test_slices_are_primitives_or_behaviour_behind_the_same_ports(
    columns: int, sparse: int
) -> None:
    spec = dataclasses.replace(
        load_machine("tiny"), matrix_element="dsp", matrix_columns=columns, sparse=sparse
    )
    behaviour, primitives = generate_verilog(spec), generate_verilog(spec, vendor=True)
    slices = r"^  DSP48E2 #\("
    assert not re.findall(slices, behaviour, re.MULTILINE)
    assert re.findall(slices, primitives, re.MULTILINE)
    inside = re.compile(r"^module lpu_dsp48_e2\w*\(.*?^endmodule", re.MULTILINE | re.DOTALL)
    # Each slice's module holds the primitive and nothing that computes; there are as many as of the behaviour.
    wrappers = inside.findall(primitives)
    assert wrappers and all("DSP48E2 #(" in text for text in wrappers)
    assert not any(" * " in text or "always" in text for text in wrappers)
    ours, theirs = summarize(spec, behaviour), summarize(spec, primitives)
    assert ours["ports"] == theirs["ports"]
    rows = spec.matrix_rows // rows_together(spec)
    # Slices of one behaviour may differ in which outputs of the primitive are in use.
    for modules in (ours["modules"], theirs["modules"]):
        slices = [name for name in modules if "dsp48" in name]
        assert sum(modules.pop(name) for name in slices) == 8 * rows
    assert ours["modules"] == theirs["modules"]


@pytest.mark.parametrize("columns, logic_slots", [(1, 0), (2, 1)])
def test_sums_of_a_row_stay_in_the_column_of_its_slices(columns: int, logic_slots: int) -> None:
    """PCOUT of every slice but the last goes to PCIN of the next, and nowhere else."""
    spec = dataclasses.replace(
        load_machine("tiny"),
        matrix_element="dsp",
        matrix_columns=columns,
        logic_slots=logic_slots,
    )
    text = convert(MatrixRow(spec, vendor=True, logic_slots=logic_slots), "row")
    (row,) = re.findall(r"^module row\(.*?^endmodule", text, re.MULTILINE | re.DOTALL)
    slices = re.findall(r"^  \w*dsp\w* dsp_\d \((.*?)^  \);", row, re.MULTILINE | re.DOTALL)
    assert len(slices) == 8 - logic_slots
    ports = [dict(re.findall(r"\.(\w+)\((\w+)\)", text)) for text in slices]
    given = [own["pcout"] for own in ports if "pcout" in own]
    taken = [own["pcin"] for own in ports if "pcin" in own]
    assert len(set(given)) == len(slices) - 1
    assert sorted(given) == sorted(taken)
    # One slice begins, one ends, and only the sum of that one is read.
    (first,) = [own for own in ports if "pcin" not in own]
    (last,) = [own for own in ports if "pcout" not in own]
    assert [own for own in ports if "p" in own] == [last] != [first]
    # Other names of these wires serve nothing.
    for wire in given:
        uses = re.findall(rf"^.*\b{wire}\b.*$", row, re.MULTILINE)
        other = [use for use in uses if not re.match(r"  wire |    \.pc(in|out)\(", use)]
        assert all(re.fullmatch(rf"  assign pcout\w* = {wire};", use) for use in other), other
        unread = [name for use in other for name in re.findall(r"assign (\w+) =", use)]
        assert all(len(re.findall(rf"(?<!\.)\b{name}\b", row)) == 2 for name in unread)


def test_the_masks_of_a_checksum_stay_whole() -> None:
    """One parity of one masked word for each bit: taken apart bit by bit, they fill 99 % of a wide machine's simulator."""
    text = convert(Checksum(64), "lpu_checksum")
    assert len(re.findall(r"= message & 512'h[0-9a-f]{128};", text)) == 32
    assert len(re.findall(r"= \^ \w+;", text)) == 32
    assert text.count("message") < 40
