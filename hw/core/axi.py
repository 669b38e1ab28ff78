"""AXI4 master signatures: the read channels (AR, R) and the write channels (AW, W, B) of one port."""

from amaranth.lib.wiring import In, Out, Signature

ADDRESS_BITS = 40
"""Byte address bits of an AXI port."""


def axi_read(bus_bytes: int) -> Signature:
    """AR and R of a master. `aruser` is 1 for an address that depends on data."""
    return Signature({
        "arvalid": Out(1),
        "arready": In(1),
        "araddr": Out(ADDRESS_BITS),
        "arlen": Out(8),
        "arsize": Out(3),
        "arburst": Out(2),
        "aruser": Out(1),
        "rvalid": In(1),
        "rready": Out(1),
        "rdata": In(8 * bus_bytes),
        "rresp": In(2),
        "rlast": In(1),
    })


def axi_write(bus_bytes: int) -> Signature:
    """AW, W and B of a master."""
    return Signature({
        "awvalid": Out(1),
        "awready": In(1),
        "awaddr": Out(ADDRESS_BITS),
        "awlen": Out(8),
        "awsize": Out(3),
        "awburst": Out(2),
        "wvalid": Out(1),
        "wready": In(1),
        "wdata": Out(8 * bus_bytes),
        "wstrb": Out(bus_bytes),
        "wlast": Out(1),
        "bvalid": In(1),
        "bready": Out(1),
        "bresp": In(2),
    })
