"""AXI4-Lite slave that turns accesses into simple register reads and writes."""

from typing import Any

from amaranth.hdl import Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, Signature

from hw.spec.registers import ADDRESS_BITS

DATA_BITS = 32
OKAY = 0
SLAVE_ERROR = 2


def axi_lite() -> Signature:
    """All five channels of a 32-bit AXI4-Lite master."""
    return Signature({
        "awvalid": Out(1),
        "awready": In(1),
        "awaddr": Out(ADDRESS_BITS),
        "awprot": Out(3),
        "wvalid": Out(1),
        "wready": In(1),
        "wdata": Out(DATA_BITS),
        "wstrb": Out(DATA_BITS // 8),
        "bvalid": In(1),
        "bready": Out(1),
        "bresp": In(2),
        "arvalid": Out(1),
        "arready": In(1),
        "araddr": Out(ADDRESS_BITS),
        "arprot": Out(3),
        "rvalid": In(1),
        "rready": Out(1),
        "rdata": In(DATA_BITS),
        "rresp": In(2),
    })


class AxiLiteSlave(wiring.Component):
    """One write and one read at a time; a write of part of a word is refused with an error response.

    Members
    -------
    bus : In(axi_lite())
    write, write_address, write_data : Out(1), Out(16), Out(32)
        A write of a whole word, in this cycle.
    write_refused : In(1)
        Answers `write` with an error response; combinational.
    read_address : Out(16)
        Address of the read under way; it stays until the response was taken.
    read_data, read_refused : In(32), In(1)
        What is there; taken two cycles after the address came, so it may pass through a memory.
    """

    bus: Any
    write: Value
    write_address: Value
    write_data: Value
    write_refused: Value
    read_address: Value
    read_data: Value
    read_refused: Value

    def __init__(self) -> None:
        super().__init__({
            "bus": In(axi_lite()),
            "write": Out(1),
            "write_address": Out(ADDRESS_BITS),
            "write_data": Out(DATA_BITS),
            "write_refused": In(1),
            "read_address": Out(ADDRESS_BITS),
            "read_data": In(DATA_BITS),
            "read_refused": In(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus = self.bus
        whole = bus.wstrb.all()
        accept = Signal()
        # A write is taken when address and data are both there and the last response has left.
        m.d.comb += [
            accept.eq(bus.awvalid & bus.wvalid & (~bus.bvalid | bus.bready)),
            bus.awready.eq(accept),
            bus.wready.eq(accept),
            self.write.eq(accept & whole),
            self.write_address.eq(bus.awaddr & ~3),
            self.write_data.eq(bus.wdata),
        ]
        with m.If(accept):
            refused = self.write_refused | ~whole
            m.d.sync += [bus.bvalid.eq(1), bus.bresp.eq(refused.replicate(2) & SLAVE_ERROR)]
        with m.Elif(bus.bready):
            m.d.sync += bus.bvalid.eq(0)

        with m.FSM():
            with m.State("ADDRESS"):
                m.d.comb += bus.arready.eq(1)
                m.d.sync += self.read_address.eq(bus.araddr & ~3)
                with m.If(bus.arvalid):
                    m.next = "MEMORY"
            with m.State("MEMORY"):
                m.next = "DATA"
            with m.State("DATA"):
                m.d.sync += [
                    bus.rvalid.eq(1),
                    bus.rdata.eq(self.read_data),
                    bus.rresp.eq(self.read_refused.replicate(2) & SLAVE_ERROR),
                ]
                m.next = "RESPONSE"
            with m.State("RESPONSE"):
                with m.If(bus.rready):
                    m.d.sync += bus.rvalid.eq(0)
                    m.next = "ADDRESS"
        return m
