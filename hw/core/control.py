"""Host control: registers, start and end of a run, errors, performance counters, interrupt."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from hw.core.axi_lite import AxiLiteSlave, axi_lite
from hw.core.core_ports import PART_BITS, command_signature, status_signature
from hw.core.counters import performance_counters
from hw.core.operands import REGISTER_BITS
from hw.core.ports import read_port
from hw.core.system import TOKEN_BITS
from hw.spec.instructions import Unit, instruction_bits
from hw.spec.machine import MachineSpec
from hw.spec.registers import ControlRegister, ErrorCode

ERROR_LAYOUT = data.StructLayout({"code": 8, "unit": 4, "core": 4, "pc": 16})


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
    command : Out(command_signature(spec))
        To all cores.
    status : In(status_signature()), an array by core
        The run ends when all sequencers of all cores are idle, or one reports an error. Cycle 0 waits until all cores'
        channels have settled.
    length : In(21)
        Of the SYS unit.
    token_read : Out(read_port)
        The token buffer, while no run lasts.
    """

    bus: Any
    irq: Value
    command: Any
    status: list[Any]
    length: Value
    token_read: Any

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        self._active = Signal()  # a run, or a start that waits
        super().__init__({
            "bus": In(axi_lite()),
            "irq": Out(1),
            "command": Out(command_signature(spec)),
            "status": In(status_signature()).array(spec.cores),
            "length": In(REGISTER_BITS + 1),
            "token_read": Out(read_port(spec.tokens, TOKEN_BITS)),
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
        command = self.command
        counters = performance_counters(m, self.spec, command, self.status)
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
            ControlRegister.PROMPT_LENGTH: (command.prompt_length, command.prompt_length, True),
            ControlRegister.STEPS: (command.steps, command.steps, True),
            ControlRegister.LENGTH: (self.length, None, False),
            ControlRegister.STOP_ENABLE: (command.stop_enable, command.stop_enable, True),
            ControlRegister.INSTRUCTION_UNIT: (unit, unit, True),
            ControlRegister.INSTRUCTION_DATA: (Value.cast(0), None, True),
            ControlRegister.COUNTER_SELECT: (select, select, False),
            ControlRegister.COUNTER_LOW: (shown[:32], None, False),
            ControlRegister.COUNTER_HIGH: (shown[32:], None, False),
        }
        for i, token in enumerate(command.stop_token):
            registers[ControlRegister.STOP_TOKEN + 4 * i] = (token, token, True)
        writable = {ControlRegister.CONTROL, ControlRegister.INSTRUCTION_DATA}
        self._registers(m, slave, registers, {int(r) for r in writable})
        m.d.comb += [command.start.eq(begin), self.irq.eq(done & interrupt_enable)]
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
        begin = Signal()
        wrong = Signal()
        asked = Signal()
        starting = Signal()
        running, cycle = self.command.running, self.command.cycle
        idle = Cat(status.idle for status in self.status).all()
        retired = Cat(status.retired for status in self.status).any()
        settled = Cat(status.settled for status in self.status).all()
        control = slave.write & (slave.write_address == ControlRegister.CONTROL)
        m.d.comb += [
            asked.eq(control & slave.write_data[0] & ~self._active),
            wrong.eq(program_hash != self.spec.hash),
            begin.eq(((asked & ~wrong) | starting) & settled),
            self._active.eq(running | starting),
        ]
        with m.If(control):
            m.d.sync += interrupt_enable.eq(slave.write_data[1])

        quiet = Signal(range(self.spec.watchdog_cycles + 1))
        found = Signal(ERROR_LAYOUT)
        self._detect(m, found, quiet)
        # An error may leave transfers behind, and a memory that does not answer would hold up the start for ever.
        with m.If(starting):
            m.d.sync += quiet.eq(quiet + 1)
            with m.If((quiet == self.spec.watchdog_cycles) & ~settled):
                m.d.sync += [starting.eq(0), done.eq(1), error.code.eq(ErrorCode.DEADLOCK)]
        with m.If(running):
            m.d.sync += quiet.eq(Mux(retired, 0, quiet + 1))
            with m.If((found.code != ErrorCode.NONE) | idle):
                m.d.sync += [running.eq(0), done.eq(1), error.eq(found)]
            with m.Else():
                m.d.sync += cycle.eq(cycle + 1)
        with m.If(begin):
            m.d.sync += [running.eq(1), starting.eq(0), cycle.eq(1), quiet.eq(0)]
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
        causes: list[tuple[Value, ErrorCode, int, int, Value]] = []
        zero = Value.cast(0)
        for core, status in enumerate(self.status):
            for unit in Unit:
                pc = status.pc[unit]
                illegal, outside = status.illegal[unit], status.outside[unit]
                causes.append((illegal, ErrorCode.ILLEGAL_INSTRUCTION, core, unit, pc))
                causes.append((outside, ErrorCode.PROGRAM_COUNTER, core, unit, pc))
            load, store = (status.oldest_pc[unit] for unit in (Unit.LD, Unit.ST))
            causes += [
                (status.overflow, ErrorCode.TOKEN_OVERFLOW, core, 0, zero),
                (status.read_error, ErrorCode.READ_RESPONSE, core, Unit.LD, load),
                (status.write_error, ErrorCode.WRITE_RESPONSE, core, Unit.ST, store),
            ]
        causes.append((quiet == self.spec.watchdog_cycles, ErrorCode.DEADLOCK, 0, 0, zero))
        # Later assignments win, so the first of the list comes last.
        for condition, code, core, unit, pc in reversed(causes):
            with m.If(condition):
                m.d.comb += [found.code.eq(code), found.unit.eq(unit), found.pc.eq(pc)]
                m.d.comb += found.core.eq(core)

    def _tokens(self, m: Module, slave: AxiLiteSlave) -> None:
        m.d.comb += [
            self.token_read.address.eq(slave.read_address[2:]),
            self.command.token_write.enable.eq(
                slave.write & (slave.write_address >= ControlRegister.TOKENS) & ~self._active
            ),
            self.command.token_write.address.eq(slave.write_address[2:]),
            self.command.token_write.data.eq(slave.write_data),
        ]

    def _instructions(self, m: Module, slave: AxiLiteSlave) -> Signal:
        """Fill the instruction memories, a part of an instruction a write; returns INSTRUCTION_UNIT."""
        most = max(instruction_bits(unit) // PART_BITS for unit in Unit)
        selected = Signal(3)
        part = Signal(range(most))
        address = Signal(ceil_log2(self.spec.instructions))
        write = Signal()
        last = Signal()
        m.d.comb += write.eq(
            slave.write & (slave.write_address == ControlRegister.INSTRUCTION_DATA) & ~self._active
        )
        for unit in Unit:
            port = getattr(self.command, f"instruction{int(unit)}")
            parts = instruction_bits(unit) // PART_BITS
            m.d.comb += [port.address.eq(address), port.data.eq(slave.write_data.replicate(parts))]
        with m.Switch(selected):
            for unit in Unit:
                port = getattr(self.command, f"instruction{int(unit)}")
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
