"""The SYS unit: token buffer, next token, end of the sequence."""

import itertools
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.core.buffers import Buffer
from hw.core.checksum import Checksum
from hw.core.operands import REGISTER_BITS
from hw.core.ports import operation_layout, read_port, unit_members, write_port
from hw.spec.instructions import Unit
from hw.spec.latency import TOKEN_CYCLES
from hw.spec.machine import MachineSpec
from hw.spec.registers import STOP_TOKENS

TOKEN_BITS = REGISTER_BITS

if TOKEN_CYCLES != 3:
    raise RuntimeError("the stages of the SYS unit take 3 cycles: hw.spec.latency must say so")


class SystemUnit(wiring.Component):
    """Takes the token of a position from the prompt or from the vector unit, and detects the end.

    Issue in cycle s: the token buffer is read in s, the token chosen in s + 1, written and compared with the
    stop tokens in s + 2; `done` in s + 3, behind which `token` and `ended` change. One instruction at a time.
    With several cores, which begin an EXECUTE all at once, everything behind s is `exchange_latency` later.

    Parameters
    ----------
    spec : MachineSpec
        Depth of the token buffer, cores and latency.

    Members
    -------
    i : In(stream.Signature(operation_layout(Unit.SYS)))
    done, checksum, illegal : Out(1), Out(32), Out(1)
        See `hw.core.ports.unit_members`; no instruction is illegal.
    running : In(1)
        The unit has the token buffer; otherwise `host_read` and `host_write` have it.
    host_read, host_write : In(read_port), In(write_port)
        The host's access to the token buffer.
    prompt_length, steps : In(20), In(20)
    stop_enable, stop_token : In(4), In(20), an array of 4
        Which stop tokens count, and what they are.
    best_index : In(20)
        The vector unit's ARGMAX in s + 1; with several cores the token chosen of all, `exchange_latency` later.
    offer, go : Out(1), In(1)
        With several cores: there is an EXECUTE to begin; all cores have one.
    hold : Out(1)
        With several cores: in the `exchange_latency` cycles behind s.
    token, ended : Out(20), Out(1)
        Shared run-time registers.
    length : Out(21)
        One more than the last position: tokens that the buffer holds.
    """

    i: stream.Interface
    done: Value
    checksum: Value
    illegal: Value
    running: Value
    host_read: Any
    host_write: Any
    prompt_length: Value
    steps: Value
    stop_enable: Value
    stop_token: list[Value]
    best_index: Value
    token: Value
    ended: Value
    length: Value
    # With several cores.
    offer: Value
    go: Value
    hold: Value

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        barrier = {"offer": Out(1), "go": In(1), "hold": Out(1)} if spec.cores > 1 else {}
        super().__init__({
            "i": In(stream.Signature(operation_layout(Unit.SYS))),
            **barrier,
            **unit_members(Unit.SYS),
            "running": In(1),
            "host_read": In(read_port(spec.tokens, TOKEN_BITS)),
            "host_write": In(write_port(spec.tokens, TOKEN_BITS)),
            "prompt_length": In(REGISTER_BITS),
            "steps": In(REGISTER_BITS),
            "stop_enable": In(STOP_TOKENS),
            "stop_token": In(TOKEN_BITS).array(STOP_TOKENS),
            "best_index": In(TOKEN_BITS),
            "token": Out(TOKEN_BITS),
            "ended": Out(1),
            "length": Out(REGISTER_BITS + 1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.tokens = tokens = Buffer(self.spec.tokens, TOKEN_BITS)
        m.submodules.crc = crc = Checksum(8)
        operation: Any = self.i.payload

        # One bit moves through the stages of an EXECUTE; a SYNC skips to the last.
        chosen = Signal()
        written = Signal()
        ended = Signal()
        synced = Signal()
        accept = Signal()
        # The token of all cores takes its time.
        waiting = [
            Signal(name=f"waiting_{age}")
            for age in range(self.spec.exchange_latency if self.spec.cores > 1 else 0)
        ]
        stages = [*waiting, chosen, written, ended]
        self._accept(m, operation, [*stages, synced], accept)
        m.d.sync += [stages[0].eq(accept & ~operation.sync), synced.eq(accept & operation.sync)]
        m.d.sync += [after.eq(before) for before, after in itertools.pairwise(stages)]

        position = Signal(REGISTER_BITS, reset_less=True)
        next_token = Signal(TOKEN_BITS, reset_less=True)
        from_prompt = Signal(reset_less=True)
        next_end = Signal()
        last_end = Signal(reset_less=True)
        with m.If(accept):
            m.d.sync += position.eq(operation.position)
        with m.If(chosen):
            m.d.sync += [
                from_prompt.eq(position < self.prompt_length),
                next_token.eq(
                    Mux(position < self.prompt_length, tokens.read[0].data, self.best_index)
                ),
            ]
        stops = [
            enable & (next_token == stop)
            for enable, stop in zip(self.stop_enable, self.stop_token, strict=True)
        ]
        m.d.comb += next_end.eq((position >= self.steps) | (~from_prompt & Cat(stops).any()))
        with m.If(written):
            m.d.sync += last_end.eq(next_end)
        with m.If(ended):
            m.d.sync += [
                self.token.eq(next_token),
                self.ended.eq(last_end),
                self.length.eq(position + 1),
            ]

        m.d.comb += [
            crc.start.eq(1),
            crc.valid.eq(written),
            crc.data.eq(next_token | (next_end << 32)),
            self.done.eq(ended | synced),
            self.checksum.eq(Mux(ended, crc.value, 0)),
        ]
        read_position: Value = operation.position
        if waiting:
            m.d.comb += self.hold.eq(Cat(waiting).any())
            read_position = Mux(self.hold, position, operation.position)
        self._access(m, tokens, read_position, position, written & ~from_prompt, next_token)
        return m

    def _accept(self, m: Module, operation: Any, under_way: list[Signal], accept: Signal) -> None:
        """One instruction at a time, and an EXECUTE in all cores at once."""
        free = Signal()
        m.d.comb += [
            free.eq(~Cat(under_way).any()),
            self.i.ready.eq(free),
            accept.eq(self.i.valid & self.i.ready),
        ]
        if self.spec.cores > 1:
            m.d.comb += [
                self.offer.eq(self.i.valid & free & ~operation.sync),
                self.i.ready.eq(free & (operation.sync | self.go)),
            ]

    def _access(
        self,
        m: Module,
        tokens: Buffer,
        read_position: Value,
        position: Value,
        write: Value,
        token: Value,
    ) -> None:
        """Reads and writes of the token buffer: the unit's in a run, otherwise the host's."""
        address_bits = ceil_log2(self.spec.tokens)
        with m.If(self.running):
            m.d.comb += [
                tokens.read[0].address.eq(read_position[:address_bits]),
                tokens.write.enable.eq(write),
                tokens.write.address.eq(position[:address_bits]),
                tokens.write.data.eq(token),
            ]
        with m.Else():
            m.d.comb += [
                tokens.read[0].address.eq(self.host_read.address),
                tokens.write.enable.eq(self.host_write.enable),
                tokens.write.address.eq(self.host_write.address),
                tokens.write.data.eq(self.host_write.data),
            ]
        m.d.comb += self.host_read.data.eq(tokens.read[0].data)
