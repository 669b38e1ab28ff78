"""The sequencer of one unit: fetch, loops, tokens, operand evaluation, retirement."""

from collections.abc import Callable
from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.core.buffers import Buffer
from hw.core.operands import INDEX_BITS, REGISTER_BITS, OperandEvaluator, State
from hw.core.ports import operation_layout, write_port
from hw.core.restart import restart_domain
from hw.core.retirement import CYCLE_BITS, PC_BITS, flight_layout, in_flight, trace_layout
from hw.spec.instructions import (
    COUNT_BITS,
    EXECUTE,
    LOOP_DEPTH,
    Condition,
    Opcode,
    Register,
    Unit,
    instruction_bits,
    instruction_fields,
)
from hw.spec.latency import CONTROL_CYCLES, EVALUATE_CYCLES, FETCH_CYCLES
from hw.spec.machine import MachineSpec

if (FETCH_CYCLES, EVALUATE_CYCLES, CONTROL_CYCLES) != (2, 2, 5):
    raise RuntimeError(
        "the states of the sequencer take 2, 2 and 5 cycles: hw.spec.latency must say so"
    )


class Sequencer(wiring.Component):
    """Runs one unit's instructions; `docs/isa.md` states the meaning and the cycle of everything.

    Parameters
    ----------
    spec : MachineSpec
        Depth of the instruction memory.
    unit : Unit
        Whose instructions.
    trace : bool
        Whether `retirement` reports every retirement; otherwise it stays 0 and costs nothing.

    Members
    -------
    start : In(1)
        Begin at instruction 0 in the next cycle.
    stop : In(1)
        Not running: halt; what is still under way is forgotten.
    cycle : In(48)
        Number of the cycle, for the trace.
    hold : In(1)
        Fetch nothing; only of SYS, with several cores.
    instruction : In(write_port)
        The instruction memory, in parts of 32 bits; only while halted.
    prompt_length, steps, token, ended : In(20), In(20), In(20), In(1)
        Shared run-time registers.
    available, take, send : In(5), Out(5), Out(5)
        See `hw.core.tokens.Tokens`.
    o : Out(stream.Signature(operation_layout(unit)))
        Evaluated operations to the unit.
    done, checksum : In(1), In(32)
        The unit's report of the end of its oldest instruction.
    idle : Out(1)
        Halted, and nothing is under way.
    busy, waiting : Out(1), Out(1)
        An instruction is under way; tokens are awaited.
    refused : In(1)
        The unit cannot execute the instruction that was issued last.
    illegal, outside : Out(1), Out(1)
        An instruction that cannot be executed; a fetch beyond the instruction memory.
    pc, oldest_pc : Out(13)
        Of the instruction that `illegal` and `outside` mean; of the oldest one under way.
    retirement : Out(trace_layout())
    """

    start: Value
    stop: Value
    cycle: Value
    hold: Value
    instruction: Any
    prompt_length: Value
    steps: Value
    token: Value
    ended: Value
    available: Value
    take: Value
    send: Value
    o: stream.Interface
    done: Value
    checksum: Value
    refused: Value
    idle: Value
    busy: Value
    waiting: Value
    illegal: Value
    outside: Value
    pc: Value
    oldest_pc: Value
    retirement: Any

    def __init__(self, spec: MachineSpec, unit: Unit, trace: bool = False) -> None:
        self.spec = spec
        self.unit = unit
        self.traced = trace
        # The token of all cores takes longer than a sequencer from one instruction to a branch behind it.
        self.held = unit == Unit.SYS and spec.cores > 1
        self.bits = instruction_bits(unit)
        self.verilog_name = f"sequencer_{unit.name.lower()}"
        super().__init__({
            "start": In(1),
            "stop": In(1),
            "cycle": In(CYCLE_BITS),
            **({"hold": In(1)} if self.held else {}),
            "instruction": In(write_port(spec.instructions, self.bits, 32)),
            "prompt_length": In(REGISTER_BITS),
            "steps": In(REGISTER_BITS),
            "token": In(REGISTER_BITS),
            "ended": In(1),
            "available": In(len(Unit)),
            "take": Out(len(Unit)),
            "send": Out(len(Unit)),
            "o": Out(stream.Signature(operation_layout(unit))),
            "done": In(1),
            "checksum": In(32),
            "refused": In(1),
            "idle": Out(1),
            "busy": Out(1),
            "waiting": Out(1),
            "illegal": Out(1),
            "outside": Out(1),
            "pc": Out(PC_BITS),
            "oldest_pc": Out(PC_BITS),
            "retirement": Out(trace_layout()),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        state: Any = Signal(State)
        word = Signal(self.bits)
        # Only `start` sets what a program sees; before it the state is HALTED, and nobody looks at the rest.
        pc = Signal(PC_BITS, reset_less=True, name="program_counter")
        issued_pc = Signal(PC_BITS, reset_less=True)
        position = Signal(REGISTER_BITS, reset_less=True)
        skipped = Signal(REGISTER_BITS, reset_less=True)
        rest = Signal(REGISTER_BITS, reset_less=True)
        # POSITION and SKIPPED change behind SUM only, and REST is read from WAIT on: it has time for a register of its own.
        m.d.sync += rest.eq(Mux(position > skipped, position - skipped, 0))
        index = [
            Signal(INDEX_BITS, name=f"index{level}", reset_less=True) for level in range(LOOP_DEPTH)
        ]
        opcode = self._field(word, Opcode.SYNC, "opcode")
        is_unit = Signal()
        m.d.comb += is_unit.eq((opcode == Opcode.SYNC) | (opcode == Opcode.EXECUTE))

        self._fetch(m, state, word, pc)
        count = self._operands(m, state, word, opcode, (position, skipped, rest), index)
        issue = Signal()
        self._states(m, state, word, pc, is_unit, issue)
        self._control(m, state, word, pc, is_unit, count, (position, skipped, rest), index)
        room = self._retire(m, word, pc, issue, index)
        m.d.comb += [
            self.o.valid.eq((state == State.OFFER) & room),
            issue.eq(self.o.valid & self.o.ready),
            self.pc.eq(Mux(self.refused, issued_pc, pc)),
            self.idle.eq((state == State.HALTED) & ~self.busy),
        ]
        with m.If(issue):
            m.d.sync += issued_pc.eq(pc)
        return m

    def _field(self, word: Value, opcode: Opcode, name: str) -> Value:
        """A field of the instruction, named as in the table of that opcode."""
        offset = 0
        for field in instruction_fields(self.unit, opcode):
            if field.name == name:
                return word[offset : offset + field.width]
            offset += field.width
        raise KeyError(name)

    def _fetch(self, m: Module, state: Value, word: Signal, pc: Signal) -> None:
        m.submodules.instructions = memory = Buffer(self.spec.instructions, self.bits, 32)
        wiring.connect(m, wiring.flipped(self.instruction), memory.write)
        fetch: Value = state == State.FETCH
        if self.held:
            fetch &= ~self.hold
        m.d.comb += [
            memory.read[0].address.eq(pc),
            word.eq(memory.read[0].data),
            self.outside.eq(fetch & (pc >= self.spec.instructions)),
        ]

    def _operands(
        self,
        m: Module,
        state: Value,
        word: Value,
        opcode: Value,
        own: tuple[Signal, Signal, Signal],
        index: list[Signal],
    ) -> Value:
        """Fill the payload of `o`; return the count of LOOP, INCREMENT and SKIP, valid in SUM.

        `own` are the registers POSITION, SKIPPED and REST.
        """
        position, skipped, rest = own
        registers = {
            Register.POSITION: position,
            Register.PROMPT_LENGTH: self.prompt_length,
            Register.STEPS: self.steps,
            Register.TOKEN: self.token,
            Register.SKIPPED: skipped,
            Register.REST: rest,
        }
        evaluator = OperandEvaluator(m, state, index, registers)
        control = Signal()
        counting = (Opcode.LOOP, Opcode.INCREMENT, Opcode.SKIP)
        m.d.comb += control.eq(Cat(opcode == code for code in counting).any())
        names = {field.name for field in EXECUTE[self.unit]}
        control_count: Value | None = None
        values: dict[str, Value] = {}

        def part(operand: str) -> Callable[[str], Value]:
            return lambda name: self._field(word, Opcode.EXECUTE, f"{operand}_{name}")

        def control_part(name: str) -> Value:
            # In the same place in INCREMENT and SKIP.
            return self._field(word, Opcode.LOOP, f"count_{name}")

        def either(own: Callable[[str], Value]) -> Callable[[str], Value]:
            return lambda name: Mux(control, control_part(name), own(name))

        for name, *_ in operation_layout(self.unit):
            if f"{name}_cap" in names:
                fields = part(name)
                if control_count is None:
                    # Control instructions have no operands, so they share the logic of the first count.
                    fields = either(fields)
                values[name] = evaluator.count(name, fields)
                control_count = values[name] if control_count is None else control_count
            elif f"{name}_base" in names and name != "address":
                values[name] = evaluator.buffer(name, part(name), 1 + (f"{name}_level1" in names))
        lane: Value | None = None
        if "address_base" in names:
            values["address"], lane = evaluator.address(part("address"))
        if control_count is None:
            control_count = evaluator.count("count", control_part)
        self.multipliers = evaluator.finish()

        for name, *_ in operation_layout(self.unit):
            target = self.o.payload[name]
            if name in values:
                operand = Signal(len(values[name]), name=name, reset_less=True)
                with m.If(state == State.SUM):
                    m.d.sync += operand.eq(values[name])
                m.d.comb += target.eq(operand)
            elif name == "sync":
                m.d.comb += target.eq(opcode == Opcode.SYNC)
            elif name == "position":
                m.d.comb += target.eq(position)
            elif name == "lane" and lane is not None:
                m.d.comb += target.eq(lane)
            else:
                m.d.comb += target.eq(self._field(word, Opcode.EXECUTE, name))
        return control_count

    def _states(
        self, m: Module, state: Value, word: Value, pc: Signal, is_unit: Signal, issue: Signal
    ) -> None:
        wait = self._field(word, Opcode.SYNC, "wait")
        missing = Signal()
        m.d.comb += missing.eq(is_unit & (wait & ~self.available).any())
        with m.Switch(state):
            with m.Case(State.FETCH):
                m.d.sync += state.eq(State.DECODE)
                if self.held:
                    with m.If(self.hold):
                        m.d.sync += state.eq(State.FETCH)
            with m.Case(State.DECODE):
                m.d.sync += state.eq(State.WAIT)
            with m.Case(State.WAIT):
                m.d.comb += self.waiting.eq(missing)
                with m.If(~missing):
                    m.d.comb += self.take.eq(Mux(is_unit, wait, 0))
                    m.d.sync += state.eq(State.EVALUATE)
            with m.Case(State.EVALUATE):
                m.d.sync += state.eq(State.SUM)
            with m.Case(State.SUM):
                m.d.sync += state.eq(State.FETCH)
                with m.If(is_unit):
                    m.d.sync += state.eq(State.OFFER)
                with m.Elif(self._field(word, Opcode.SYNC, "opcode") == Opcode.HALT):
                    m.d.sync += state.eq(State.HALTED)
            with m.Case(State.OFFER):
                with m.If(issue):
                    m.d.sync += [state.eq(State.FETCH), pc.eq(pc + 1)]
        with m.If(self.stop):
            m.d.sync += state.eq(State.HALTED)
        with m.If(self.start):
            m.d.sync += [state.eq(State.FETCH), pc.eq(0)]

    def _control(
        self,
        m: Module,
        state: Value,
        word: Value,
        pc: Signal,
        is_unit: Signal,
        count: Value,
        own: tuple[Signal, Signal, Signal],
        index: list[Signal],
    ) -> None:
        position, skipped, rest = own
        depth = Signal(range(LOOP_DEPTH + 1), reset_less=True)
        rounds = Array(
            Signal(COUNT_BITS, name=f"rounds{level}", reset_less=True)
            for level in range(LOOP_DEPTH)
        )
        indices = Array(index)
        innermost = Signal(range(LOOP_DEPTH))
        following = Signal(INDEX_BITS)
        close = self._field(word, Opcode.BRANCH, "close")
        taken = Signal()
        m.d.comb += [
            innermost.eq(depth - 1),
            following.eq(indices[innermost] + 1),
        ]
        with m.Switch(self._field(word, Opcode.BRANCH, "condition")):
            with m.Case(Condition.ALWAYS):
                m.d.comb += taken.eq(1)
            with m.Case(Condition.PREFILL):
                m.d.comb += taken.eq(position < self.prompt_length)
            with m.Case(Condition.END):
                m.d.comb += taken.eq(self.ended)
            with m.Case(Condition.REST):
                m.d.comb += taken.eq(rest != 0)
        legal = Signal()
        m.d.comb += self.illegal.eq(((state == State.SUM) & ~is_unit & ~legal) | self.refused)
        with m.If((state == State.SUM) & ~is_unit):
            m.d.sync += pc.eq(pc + 1)
            with m.Switch(self._field(word, Opcode.SYNC, "opcode")):
                with m.Case(Opcode.LOOP):
                    m.d.comb += legal.eq(depth < LOOP_DEPTH)
                    with m.If(count == 0):
                        m.d.sync += pc.eq(self._field(word, Opcode.LOOP, "target"))
                    with m.Else():
                        m.d.sync += [depth.eq(depth + 1), rounds[depth[:2]].eq(count)]
                with m.Case(Opcode.END_LOOP):
                    m.d.comb += legal.eq(depth != 0)
                    with m.If(following < rounds[innermost]):
                        m.d.sync += [
                            indices[innermost].eq(following),
                            pc.eq(self._field(word, Opcode.END_LOOP, "target")),
                        ]
                    with m.Else():
                        m.d.sync += [depth.eq(depth - 1), indices[innermost].eq(0)]
                with m.Case(Opcode.BRANCH):
                    m.d.comb += legal.eq(close <= depth)
                    with m.If(taken):
                        m.d.sync += pc.eq(self._field(word, Opcode.BRANCH, "target"))
                        m.d.sync += depth.eq(depth - close)
                        for level in range(LOOP_DEPTH):
                            with m.If(level + close >= depth):
                                m.d.sync += index[level].eq(0)
                with m.Case(Opcode.INCREMENT):
                    m.d.comb += legal.eq(1)
                    backward = self._field(word, Opcode.INCREMENT, "backward")
                    m.d.sync += position.eq(Mux(backward, position - count, position + count))
                with m.Case(Opcode.SKIP):
                    m.d.comb += legal.eq(1)
                    less = self._field(word, Opcode.SKIP, "less")
                    m.d.sync += skipped.eq(Mux(count > less, count - less, 0))
                with m.Case(Opcode.HALT):
                    m.d.comb += legal.eq(1)
                    m.d.sync += pc.eq(pc)
        with m.If(self.start):
            m.d.sync += [depth.eq(0), position.eq(0), skipped.eq(0), *(i.eq(0) for i in index)]

    def _retire(
        self, m: Module, word: Value, pc: Signal, issue: Signal, index: list[Signal]
    ) -> Value:
        """Keep what is under way, in order; return whether there is room for one more."""
        layout = flight_layout(self.traced)
        issued = Signal(layout)
        oldest = Signal(layout, reset_less=True)
        m.d.comb += [issued.signal.eq(self._field(word, Opcode.SYNC, "signal")), issued.pc.eq(pc)]
        if self.traced:
            m.d.comb += issued.issue.eq(self.cycle)
            m.d.comb += [issued[f"index{level}"].eq(value) for level, value in enumerate(index)]
        depth = in_flight(self.spec, self.unit)
        if depth == 1:
            under_way = Signal()
            with m.If(issue):
                m.d.sync += [oldest.eq(issued), under_way.eq(1)]
            with m.Elif(self.done):
                m.d.sync += under_way.eq(0)
            with m.If(self.start):
                m.d.sync += under_way.eq(0)
            m.d.comb += self.busy.eq(under_way)
            # The unit itself is not ready before it has ended.
            room = Value.cast(1)
        else:
            queue = fifo.SyncFIFO(width=layout.size, depth=depth)
            m.submodules.queue = restart_domain(m, "queue", self.start)(queue)
            m.d.comb += [
                queue.w_data.eq(issued.as_value()),
                queue.w_en.eq(issue),
                queue.r_en.eq(self.done),
                oldest.as_value().eq(queue.r_data),
                self.busy.eq(queue.r_rdy),
            ]
            room = queue.w_rdy
        m.d.comb += [
            self.send.eq(Mux(self.done & ~self.stop, oldest.signal, 0)),
            self.oldest_pc.eq(oldest.pc),
        ]
        if self.traced:
            m.d.comb += [
                self.retirement[f"index{i}"].eq(oldest[f"index{i}"]) for i in range(LOOP_DEPTH)
            ]
            m.d.comb += [
                self.retirement.valid.eq(self.done & ~self.stop),
                self.retirement.pc.eq(oldest.pc),
                self.retirement.issue.eq(oldest.issue),
                self.retirement.end.eq(self.cycle),
                self.retirement.checksum.eq(self.checksum),
            ]
        return room
