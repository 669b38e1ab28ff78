"""Resources of Verilog on UltraScale+ parts, by Yosys: each module by itself, times its instances."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hw.tools import cached_result, run_tool, tool_version

__all__ = ["ModuleResources", "Resources", "synthesize", "synthesize_flat", "yosys_report"]

LUT_CELLS = {"INV": 1, "SRL16E": 1, "SRLC16E": 1, "SRLC32E": 1} | {
    f"LUT{n}": 1 for n in range(1, 7)
}
"""Lookup tables of each cell that has some; a shift register is one."""
LUT_CELLS |= {"RAM32M": 4, "RAM32M16": 8, "RAM64M": 4, "RAM64M8": 8, "RAM32X1S": 1, "RAM64X1S": 1}
LUT_CELLS |= {"RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1S": 2, "RAM128X1D": 4, "RAM256X1S": 4}
LUT_CELLS |= {"RAM256X1D": 8, "RAM512X1S": 8, "RAM32X2S": 2, "RAM32X16DR8": 8, "RAM64X8SW": 8}
BLOCK_RAMS = {"RAMB36E2": 1.0, "RAMB18E2": 0.5}
# Cells without a resource of their own.
FREE_CELLS = {"CARRY4", "CARRY8", "MUXF7", "MUXF8", "MUXF9", "BUFG", "IBUF", "OBUF", "GND", "VCC"}

ULTRA_DEPTH, ULTRA_WIDTH = 4096, 144
"""Memories of at least this shape go to UltraRAM: they fill two."""

SCRIPT = """
read_verilog -sv design.sv
hierarchy -top {top}
proc
memory_collect
setattr -set ram_style "ultra" t:$mem_v2 r:SIZE>={depth} %i r:WIDTH>={width} %i
synth_xilinx -family xcup -top {top} -noiopad -noclkbuf -widemux 5
tee -q -o stat.json stat -json
"""


FLAT_SCRIPT = """
read_verilog -sv design.sv
hierarchy -top {top}
proc
flatten
{unread}
opt_clean -purge
memory_collect
setattr -set ram_style "ultra" t:$mem_v2 r:SIZE>={depth} %i r:WIDTH>={width} %i
synth_xilinx -family xcup -top {top} -noiopad -noclkbuf -widemux 5 -run :map_luts
opt_expr -mux_undef -noclkinv
abc -luts 2:2,3,6:5,10,20
clean
xilinx_srl -fixed -minlen 3
techmap -map +/xilinx/lut_map.v -map +/xilinx/cells_map.v -D LUT_WIDTH=6
xilinx_dffopt
opt_lut_ins -tech xilinx
clean
tee -q -o stat.json stat -json
"""
"""As `SCRIPT`, without hierarchy, and with the older mapper to LUTs: the newer one stops on some large modules."""


@dataclass(frozen=True)
class Resources:
    """What a design takes of a part: slices of each kind, and of memories."""

    dsp: float = 0
    lut: float = 0
    ff: float = 0
    bram: float = 0
    uram: float = 0

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(**{n: getattr(self, n) + getattr(other, n) for n in self.to_dict()})

    def __mul__(self, count: float) -> "Resources":
        return Resources(**{n: v * count for n, v in self.to_dict().items()})

    def to_dict(self) -> dict[str, float]:
        """Numbers by name; BRAM in blocks of 36 kbit, so halves are possible."""
        return {n: getattr(self, n) for n in ("dsp", "lut", "ff", "bram", "uram")}


@dataclass(frozen=True)
class ModuleResources:
    """One module of a design.

    Parameters
    ----------
    name : str
        Its name in the Verilog.
    instances : int
        In the whole design.
    each : Resources
        Of one instance, with all below it.
    """

    name: str
    instances: int
    each: Resources


def count_cells(cells: Mapping[str, int]) -> Resources:
    """Resources of cells of the part's own library.

    Raises
    ------
    ValueError
        If a cell is of no known kind: then nobody knows what it takes.
    """
    total = Resources()
    for kind, count in cells.items():
        if kind in LUT_CELLS:
            total += Resources(lut=count * LUT_CELLS[kind])
        elif kind.startswith("FD"):
            total += Resources(ff=count)
        elif kind in BLOCK_RAMS:
            total += Resources(bram=count * BLOCK_RAMS[kind])
        elif kind == "URAM288":
            total += Resources(uram=count)
        elif kind == "DSP48E2":
            total += Resources(dsp=count)
        elif kind not in FREE_CELLS:
            raise ValueError(f"{kind}: a cell whose resources are not known")
    return total


def yosys_report(verilog: str, script: str) -> Any:
    """What a script for Yosys writes to stat.json about design.sv; kept between runs, by content."""

    def make() -> Any:
        files = {"design.sv": verilog, "synth.ys": script}
        return json.loads(run_tool("yosys", ["-q", "-s", "synth.ys"], files, "stat.json"))

    return cached_result("synthesis", [verilog, script, tool_version("yosys")], make)


def _cells(verilog: str, script: str) -> dict[str, Counter[str]]:
    """Numbers of cells by kind, of each module."""
    return {
        name.removeprefix("\\"): Counter(module["num_cells_by_type"])
        for name, module in yosys_report(verilog, script)["modules"].items()
    }


def synthesize_flat(verilog: str, top: str, unread: tuple[str, ...] = ()) -> Resources:
    """Resources of a module with all below it, optimized as one.

    Parameters
    ----------
    verilog : str
    top : str
        Module of it.
    unread : tuple of str
        Outputs that nobody reads: what serves them only is not counted.
    """
    drop = "\n".join(f"delete -port w:{name}" for name in unread)
    script = FLAT_SCRIPT.format(top=top, depth=ULTRA_DEPTH, width=ULTRA_WIDTH, unread=drop)
    cells = _cells(verilog, script)
    return _by_module(cells, top)[0].each


def synthesize(verilog: str, top: str) -> list[ModuleResources]:
    """Resources of a module of `verilog` and of all modules below it, the top first.

    Every module is synthesized once, by itself: nothing is optimized across its boundary. So the figures
    are an upper estimate of what a flat synthesis gives, and large designs take no longer than their
    parts. Kept between runs, by content.
    """
    script = SCRIPT.format(top=top, depth=ULTRA_DEPTH, width=ULTRA_WIDTH)
    cells = _cells(verilog, script)
    return _by_module(cells, top)


def _by_module(cells: Mapping[str, Mapping[str, int]], top: str) -> list[ModuleResources]:
    each: dict[str, Resources] = {}
    instances: Counter[str] = Counter()

    def resources(name: str) -> Resources:
        if name not in each:
            own = {kind: n for kind, n in cells[name].items() if kind not in cells}
            total = count_cells(own)
            for kind, count in cells[name].items():
                if kind in cells:
                    total += resources(kind) * count
            each[name] = total
        return each[name]

    def visit(name: str, count: int) -> None:
        instances[name] += count
        for kind, number in cells[name].items():
            if kind in cells:
                visit(kind, count * number)

    resources(top)
    visit(top, 1)
    return [ModuleResources(name, count, each[name]) for name, count in instances.items()]
