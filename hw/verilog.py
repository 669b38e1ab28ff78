"""Verilog of components: one module for each kind of component, under names that a reader can use."""

import re
from typing import Any

from amaranth._toolchain.yosys import find_yosys
from amaranth.back import rtlil  # pyright: ignore[reportAttributeAccessIssue] not in the stubs
from amaranth.hdl import Elaboratable, Fragment, Module, ValueCastable
from amaranth.hdl._ir import PortDirection
from amaranth.hdl._xfrm import TransformedElaboratable
from amaranth.lib import wiring

from hw.core.buffers import VERILOG as BUFFER_VERILOG
from hw.rtlil import share_modules, snake
from hw.sharing import Library
from hw.spec.machine import MachineSpec
from hw.spec.wires import Wires

PREFIX = "lpu_"
PROCESSOR = "lpu_processor"
"""Name of the top module."""

LINT_OFF = {
    "DECLFILENAME": "all modules are in one file",
    "PROCASSINIT": "registers have an initial value, for FPGAs, and a reset",
    "UNUSEDSIGNAL": "members of a structure have a name of their own, used or not",
    "VARHIDDEN": "a signal may have the name of an instance beside the module",
    "WIDTHEXPAND": "operands narrower than a result are extended, as Verilog does it",
}
"""Warnings of `verilator --lint-only -Wall` that are not looked at, and why; there are no others."""


def convert(component: wiring.Component, name: str) -> str:
    """Verilog of a component and of all below it; the ports of the top are named as its members.

    Components with the same netlist share a module. Modules are named after the component's class, or its
    attribute `verilog_name`; where netlists of one class differ, the name of the submodule follows.
    """
    library = Library()
    text, kinds = _to_rtlil(component, name, library)
    kinds[name] = name
    written: set[str] = set()
    while left := library.components.keys() - written:
        for shared in sorted(left):
            part, part_kinds = _to_rtlil(library.components[shared], shared, library)
            text += part
            kinds |= part_kinds
        written |= left
    verilog = _to_verilog(share_modules(text, kinds, PREFIX))
    if re.search(r"^\s*lpu_ram\b", verilog, re.MULTILINE):
        verilog += "\n" + BUFFER_VERILOG.read_text()
    return verilog


def _to_rtlil(component: Any, name: str, library: Library) -> tuple[str, dict[str, str]]:
    """RTLIL text of a component, and the kinds of its modules by path; repeated components are left to the library."""
    ports: dict[str, Any] = {}
    for path, member, value in component.signature.flatten(component):
        if isinstance(value, ValueCastable):
            value = value.as_value()
        direction = PortDirection.Input if member.flow == wiring.In else PortDirection.Output
        ports["__".join(map(str, path))] = (value, direction)
    fragment = Fragment.get(component, library)
    design = fragment.prepare(ports=ports, hierarchy=tuple(name.split(".")))
    text, _ = rtlil.convert_fragment(design, ports, name, emit_src=False)
    return text, _kinds(design)


def generate_verilog(
    spec: MachineSpec, trace: bool = False, wires: Wires | None = None, *, vendor: bool = False
) -> str:
    """Verilog of the whole processor; the top module is `PROCESSOR`.

    Parameters
    ----------
    spec : MachineSpec
        The machine.
    trace : bool
        Adds the ports of the retirement trace.
    wires : Wires or None
        Weights of the machine's hardwired matrices, whose networks are not part of this text (`hw.wires_verilog`).
    vendor : bool
        DSP slices (`matrix_element` dsp) are DSP48E2 primitives, and not their behaviour.
    """
    from hw.core.processor import Processor

    banner = f"// OpenLPU flight processor, target {spec.name}, machine {spec.hash:08x}\n"
    return banner + convert(Processor(spec, trace, wires, vendor=vendor), PROCESSOR)


def _kinds(design: Any) -> dict[str, str]:
    """Module name for each path of the hierarchy, without number."""
    kinds = {}
    for fragment, info in design.fragments.items():
        inner = [_inner(origin) for origin in fragment.origins or ()]
        origins = [origin for origin in inner if not isinstance(origin, Module | Fragment)]
        if origins:
            kind = getattr(origins[-1], "verilog_name", snake(type(origins[-1]).__name__))
            kinds[".".join(info.name)] = PREFIX + kind
    return kinds


def _inner(origin: Elaboratable) -> Elaboratable:
    """What a wrapper such as a DomainRenamer wraps."""
    return _inner(origin._elaboratable_) if isinstance(origin, TransformedElaboratable) else origin


def _to_verilog(rtlil_text: str) -> str:
    attributes = " ".join(
        f"-remove {name}"
        for name in (
            "generator",
            "top",
            "src",
            "amaranth.hierarchy",
            "amaranth.decoding",
            "full_case",
            "parallel_case",
        )
    )
    script = [
        f"read_rtlil <<rtlil\n{rtlil_text}\nrtlil",
        "proc -nomux -norom -noopt",
        # Not of checksums: their masks would fall apart into single bits, which fill 99 % of a simulator.
        f"opt_expr -keepdc * {PREFIX}checksum* %d",
        "memory_collect",
        f"attrmap {attributes}",
        f"attrmap -modattr {attributes}",
        "write_verilog -sv",
    ]
    yosys = find_yosys(lambda version: version >= (0, 40))
    # It warns of processes that stay processes, which is what is wanted here.
    verilog = yosys.run(["-q", "-"], "\n".join(script), ignore_warnings=True)
    # Registers have their initial value in their declaration too.
    verilog = re.sub(r"^  \(\* init = [^\n]*\*\)\n", "", verilog, flags=re.MULTILINE)
    # Comparison with zero, without the width warning that `!` of a number raises.
    verilog = re.sub(r"= ! ([\w\[\]:]+);", r"= ~| \1;", verilog)
    return _with_defaults(verilog)


def _with_defaults(verilog: str) -> str:
    """Verilog in which every case statement has a default; what it leaves alone was assigned before."""
    lines: list[str] = []
    has_default: list[bool] = []
    for line in verilog.split("\n"):
        word = line.lstrip().partition(" ")[0]
        if word in {"case", "casez"}:
            has_default.append(False)
        elif word == "default:":
            has_default[-1] = True
        elif word == "endcase" and not has_default.pop():
            lines.append(line.replace("endcase", "  default: ;"))
        lines.append(line)
    return "\n".join(lines)
