"""Resources of Verilog on ECP5 parts, by Yosys."""

from collections import Counter

from hw.synthesis import Resources, yosys_report

__all__ = ["synthesize_ecp5"]

CELLS = {
    "LUT4": Resources(lut=1),
    # A pair of lookup tables with their carry.
    "CCU2C": Resources(lut=2),
    # Three slices: two that hold it, and the lookup tables of the one that writes.
    "TRELLIS_DPR16X4": Resources(lut=6),
    "TRELLIS_FF": Resources(ff=1),
    "MULT18X18D": Resources(dsp=1),
    "DP16KD": Resources(bram=0.5),
    "PDPW16KD": Resources(bram=0.5),
    "PFUMX": Resources(),
    "L6MUX21": Resources(),
    "GND": Resources(),
    "VCC": Resources(),
}
"""A block memory has 18 kbit, half of the unit that boards are counted in."""

SCRIPT = """
read_verilog -sv design.sv
hierarchy -top {top}
proc
flatten
{unread}
opt_clean -purge
synth_ecp5 -noiopad -top {top}
tee -q -o stat.json stat -json
"""


def synthesize_ecp5(verilog: str, top: str, unread: tuple[str, ...] = ()) -> Resources:
    """Resources of a module with all below it, optimized as one.

    Parameters
    ----------
    verilog : str
    top : str
        Module of it.
    unread : tuple of str
        Outputs that nobody reads: what serves them only is not counted.

    Raises
    ------
    ValueError
        If a cell is of no known kind.
    """
    drop = "\n".join(f"delete -port w:{name}" for name in unread)
    script = SCRIPT.format(top=top, unread=drop)
    report = yosys_report(verilog, script)
    total = Resources()
    cells: Counter[str] = Counter(report["design"]["num_cells_by_type"])
    for kind, count in cells.items():
        if kind not in CELLS:
            raise ValueError(f"{kind}: a cell whose resources are not known")
        total += CELLS[kind] * count
    return total
