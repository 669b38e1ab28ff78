"""Host control: registers, start and end of a run, errors, performance counters, interrupt."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2, exact_log2

from hw.core.axi_lite import AxiLiteSlave, axi_lite
from hw.core.operands import REGISTER_BITS
from hw.core.ports import read_port, write_port
from hw.core.sequencer import CYCLE_BITS, PC_BITS
from hw.core.system import TOKEN_BITS
from hw.spec.instructions import Unit, instruction_bits
from hw.spec.machine import MachineSpec
from hw.spec.registers import STOP_TOKENS, ControlRegister, Counter, ErrorCode

PART_BITS = 32
ERROR_LAYOUT = data.StructLayout({"code": 8, "unit": 8, "pc": 16})


class Control(wiring.Component):
    """The AXI4-Lite register map of `hw.spec.registers`, and the run that it controls.

    Cycle 0 is that in which `start` is high. Writes to registers that a run depends on are refused with an
    error response while it lasts; so are accesses to addresses that are not in the map.

    Parameters
    ----------
    spec : MachineSpec
        Identity and depths.

    Members
    -------
    bus : In(axi_lite())
    irq : Out(1)
        A run has ended and the interrupt is enabled.
    start, running, cycle : Out(1), Out(1), Out(48)
        Cycle 0 of a run; the cycles from 1 to its end; number of the cycle.
    prompt_length, steps, stop_enable, stop_token : Out
        What the host wrote.
    length : In(21)
        Of the SYS unit.
    token_read, token_write : Out(read_port), Out(write_port)
        The token buffer, while no run lasts.
    instruction0 ... : Out(write_port)
        The instruction memories by unit.
    idle : In(5)
        Sequencers that are halted and have nothing under way; the run ends when all are.
    settled : In(1)
        No transfer of an earlier run is under way on the memory channels; cycle 0 of a run waits for it.
    retired, busy, waiting : In(5)
        For the watchdog and the counters.
    beat_read, beat_written : In(1)
        A beat on every channel.
    illegal, outside : In(5), In(5)
        Errors by unit; `pc` is where.
    read_error, write_error, overflow : In(1)
        Errors of responses (of LD, ST), and of the token counters.
    pc, oldest_pc : In(13), arrays by unit
        Of the latest instruction; of the oldest that is under way.
    """

    bus: Any
    irq: Value
    start: Value
    running: Value
    cycle: Value
    prompt_length: Value
    steps: Value
    stop_enable: Value
    stop_token: list[Value]
    length: Value
    token_read: Any
    token_write: Any
    idle: Value
    settled: Value
    retired: Value
    busy: Value
    waiting: Value
    beat_read: Value
    beat_written: Value
    illegal: Value
    outside: Value
    read_error: Value
    write_error: Value
    overflow: Value
    pc: list[Value]
    oldest_pc: list[Value]

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        self._active = Signal()  # a run, or a start that waits
        units = len(Unit)
        instructions = {
            f"instruction{int(unit)}": Out(
                write_port(spec.instructions, instruction_bits(unit), PART_BITS)
            )
            for unit in Unit
        }
        super().__init__({
            "bus": In(axi_lite()),
            "irq": Out(1),
            "start": Out(1),
            "running": Out(1),
            "cycle": Out(CYCLE_BITS),
            "prompt_length": Out(REGISTER_BITS),
            "steps": Out(REGISTER_BITS),
            "stop_enable": Out(STOP_TOKENS),
            "stop_token": Out(TOKEN_BITS).array(STOP_TOKENS),
            "length": In(REGISTER_BITS + 1),
            "token_read": Out(read_port(spec.tokens, TOKEN_BITS)),
            "token_write": Out(write_port(spec.tokens, TOKEN_BITS)),
            **instructions,
            "idle": In(units),
            "settled": In(1),
            "retired": In(units),
            "busy": In(units),
            "waiting": In(units),
            "beat_read": In(1),
            "beat_written": In(1),
            "illegal": In(units),
            "outside": In(units),
            "read_error": In(1),
            "write_error": In(1),
            "overflow": In(1),
            "pc": In(PC_BITS).array(units),
            "oldest_pc": In(PC_BITS).array(units),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.slave = slave = AxiLiteSlave()
        connect(m, flipped(self.bus), slave.bus)
        error = Signal(ERROR_LAYOUT)
        done = Signal()
        interrupt_enable = Signal()
        program_hash = Signal(32)
        select = Signal(8)
        counters = self._counters(m)
        begin = self._run(m, slave, error, done, interrupt_enable, program_hash)
        self._tokens(m, slave)
        unit = self._instructions(m, slave)
        status = Cat(self._active, done, error.code != ErrorCode.NONE)
        shown = Signal(64)
        with m.Switch(select):
            for number, value in counters.items():
                with m.Case(number):
                    m.d.comb += shown.eq(value)

        # Every register: what is read, what is written, and whether a run forbids to write it.
        registers: dict[int, tuple[Value, Value | None, bool]] = {
            ControlRegister.IDENTITY: (Value.cast(self.spec.hash), None, False),
            ControlRegister.PROGRAM_HASH: (program_hash, program_hash, True),
            ControlRegister.CONTROL: (interrupt_enable << 1, None, False),
            ControlRegister.STATUS: (status, None, False),
            ControlRegister.ERROR: (error.as_value(), None, False),
            ControlRegister.PROMPT_LENGTH: (self.prompt_length, self.prompt_length, True),
            ControlRegister.STEPS: (self.steps, self.steps, True),
            ControlRegister.LENGTH: (self.length, None, False),
            ControlRegister.STOP_ENABLE: (self.stop_enable, self.stop_enable, True),
            ControlRegister.INSTRUCTION_UNIT: (unit, unit, True),
            ControlRegister.INSTRUCTION_DATA: (Value.cast(0), None, True),
            ControlRegister.COUNTER_SELECT: (select, select, False),
            ControlRegister.COUNTER_LOW: (shown[:32], None, False),
            ControlRegister.COUNTER_HIGH: (shown[32:], None, False),
        }
        for i, token in enumerate(self.stop_token):
            registers[ControlRegister.STOP_TOKEN + 4 * i] = (token, token, True)
        writable = {ControlRegister.CONTROL, ControlRegister.INSTRUCTION_DATA}
        self._registers(m, slave, registers, {int(r) for r in writable})
        m.d.comb += [self.start.eq(begin), self.irq.eq(done & interrupt_enable)]
        return m

    def _registers(
        self,
        m: Module,
        slave: AxiLiteSlave,
        registers: dict[int, tuple[Value, Value | None, bool]],
        acting: set[int],
    ) -> None:
        """Reads and writes; `acting` are the registers whose writes are handled elsewhere."""
        m.d.comb += [slave.write_refused.eq(1), slave.read_refused.eq(1)]
        with m.Switch(slave.write_address):
            for address, (_, target, held) in registers.items():
                if target is None and address not in acting:
                    continue
                with m.Case(address):
                    refused = self._active if held else Value.cast(0)
                    m.d.comb += slave.write_refused.eq(refused)
                    if target is not None:
                        with m.If(slave.write & ~refused):
                            m.d.sync += target.eq(slave.write_data)
            with m.Case(_window(self.spec, slave.write_address)):
                m.d.comb += slave.write_refused.eq(self._active)
        with m.Switch(slave.read_address):
            for address, (source, _, _) in registers.items():
                with m.Case(address):
                    m.d.comb += [slave.read_data.eq(source), slave.read_refused.eq(0)]
            with m.Case(_window(self.spec, slave.read_address)):
                m.d.comb += [
                    slave.read_data.eq(self.token_read.data),
                    slave.read_refused.eq(self._active),
                ]

    def _run(
        self,
        m: Module,
        slave: AxiLiteSlave,
        error: Any,
        done: Signal,
        interrupt_enable: Signal,
        program_hash: Signal,
    ) -> Value:
        """Start, end and errors of a run; returns the start."""
        begin, wrong = Signal(), Signal()
        asked, starting = Signal(), Signal()
        control = slave.write & (slave.write_address == ControlRegister.CONTROL)
        m.d.comb += [
            asked.eq(control & slave.write_data[0] & ~self._active),
            wrong.eq(program_hash != self.spec.hash),
            begin.eq(((asked & ~wrong) | starting) & self.settled),
            self._active.eq(self.running | starting),
        ]
        with m.If(control):
            m.d.sync += interrupt_enable.eq(slave.write_data[1])

        quiet = Signal(range(self.spec.watchdog_cycles + 1))
        found = Signal(ERROR_LAYOUT)
        self._detect(m, found, quiet)
        # An error may leave transfers behind, and a memory that does not answer would hold up the start for ever.
        with m.If(starting):
            m.d.sync += quiet.eq(quiet + 1)
            with m.If((quiet == self.spec.watchdog_cycles) & ~self.settled):
                m.d.sync += [starting.eq(0), done.eq(1), error.code.eq(ErrorCode.DEADLOCK)]
        with m.If(self.running):
            m.d.sync += quiet.eq(Mux(self.retired.any(), 0, quiet + 1))
            with m.If((found.code != ErrorCode.NONE) | self.idle.all()):
                m.d.sync += [self.running.eq(0), done.eq(1), error.eq(found)]
            with m.Else():
                m.d.sync += self.cycle.eq(self.cycle + 1)
        with m.If(begin):
            m.d.sync += [self.running.eq(1), starting.eq(0), self.cycle.eq(1), quiet.eq(0)]
        with m.Elif(asked):
            m.d.sync += [starting.eq(~wrong), quiet.eq(0)]
        with m.If(asked):
            m.d.sync += [
                done.eq(wrong),
                error.as_value().eq(Mux(wrong, ErrorCode.WRONG_PROGRAM, ErrorCode.NONE)),
            ]
        return begin

    def _detect(self, m: Module, found: Any, quiet: Signal) -> None:
        """The error of this cycle: of several, that of the first in this list."""
        causes: list[tuple[Value, ErrorCode, int, Value]] = []
        for unit in Unit:
            causes.append((self.illegal[unit], ErrorCode.ILLEGAL_INSTRUCTION, unit, self.pc[unit]))
            causes.append((self.outside[unit], ErrorCode.PROGRAM_COUNTER, unit, self.pc[unit]))
        zero = Value.cast(0)
        causes += [
            (self.overflow, ErrorCode.TOKEN_OVERFLOW, 0, zero),
            (self.read_error, ErrorCode.READ_RESPONSE, Unit.LD, self.oldest_pc[Unit.LD]),
            (self.write_error, ErrorCode.WRITE_RESPONSE, Unit.ST, self.oldest_pc[Unit.ST]),
            (quiet == self.spec.watchdog_cycles, ErrorCode.DEADLOCK, 0, zero),
        ]
        # Later assignments win, so the first of the list comes last.
        for condition, code, unit, pc in reversed(causes):
            with m.If(condition):
                m.d.comb += [found.code.eq(code), found.unit.eq(unit), found.pc.eq(pc)]

    def _counters(self, m: Module) -> dict[int, Value]:
        """Performance counters by number; they stand still between runs."""
        bus_shift = exact_log2(self.spec.bus_bytes)
        events = {Counter.BYTES_READ: self.beat_read, Counter.BYTES_WRITTEN: self.beat_written}
        events |= {Counter.BUSY + unit: self.busy[unit] for unit in Unit}
        events |= {Counter.WAIT + unit: self.waiting[unit] for unit in Unit}
        counters: dict[int, Value] = {int(Counter.CYCLES): self.cycle}
        for number, event in events.items():
            count = Signal(CYCLE_BITS, name=f"counter{int(number)}")
            with m.If(self.start):
                m.d.sync += count.eq(0)
            with m.Elif(self.running & event):
                m.d.sync += count.eq(count + 1)
            scaled = number in {Counter.BYTES_READ, Counter.BYTES_WRITTEN}
            counters[int(number)] = count << bus_shift if scaled else count
        return counters

    def _tokens(self, m: Module, slave: AxiLiteSlave) -> None:
        m.d.comb += [
            self.token_read.address.eq(slave.read_address[2:]),
            self.token_write.enable.eq(
                slave.write & (slave.write_address >= ControlRegister.TOKENS) & ~self._active
            ),
            self.token_write.address.eq(slave.write_address[2:]),
            self.token_write.data.eq(slave.write_data),
        ]

    def _instructions(self, m: Module, slave: AxiLiteSlave) -> Signal:
        """Fill the instruction memories, a part of an instruction a write; returns INSTRUCTION_UNIT."""
        most = max(instruction_bits(unit) // PART_BITS for unit in Unit)
        selected = Signal(3)
        part = Signal(range(most))
        address = Signal(ceil_log2(self.spec.instructions))
        write, last = Signal(), Signal()
        m.d.comb += write.eq(
            slave.write & (slave.write_address == ControlRegister.INSTRUCTION_DATA) & ~self._active
        )
        for unit in Unit:
            port = getattr(self, f"instruction{int(unit)}")
            parts = instruction_bits(unit) // PART_BITS
            m.d.comb += [port.address.eq(address), port.data.eq(slave.write_data.replicate(parts))]
        with m.Switch(selected):
            for unit in Unit:
                port = getattr(self, f"instruction{int(unit)}")
                parts = instruction_bits(unit) // PART_BITS
                with m.Case(unit):
                    m.d.comb += [port.enable.eq(write << part), last.eq(part == parts - 1)]
        with m.If(write):
            m.d.sync += part.eq(part + 1)
            with m.If(last):
                m.d.sync += [part.eq(0), address.eq(address + 1)]
        with m.If(slave.write & (slave.write_address == ControlRegister.INSTRUCTION_UNIT)):
            m.d.sync += [part.eq(0), address.eq(0)]
        return selected


def _window(spec: MachineSpec, address: Value) -> str:
    """Pattern of the addresses of the token buffer."""
    word_bits = ceil_log2(spec.tokens)
    high = ControlRegister.TOKENS >> (2 + word_bits)
    return f"{high:0{len(address) - 2 - word_bits}b}" + "-" * (word_bits + 2)
