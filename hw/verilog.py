"""Verilog of components: one module for each kind of component, under names that a reader can use."""

import re
from dataclasses import dataclass, field
from typing import Any

from amaranth._toolchain.yosys import find_yosys
from amaranth.back import rtlil  # pyright: ignore[reportAttributeAccessIssue] not in the stubs
from amaranth.hdl import Elaboratable, Fragment, Module, ValueCastable
from amaranth.hdl._ir import PortDirection
from amaranth.hdl._xfrm import TransformedElaboratable
from amaranth.lib import wiring

from hw.core.buffers import VERILOG as BUFFER_VERILOG
from hw.spec.machine import MachineSpec

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


@dataclass
class _RtlilModule:
    """One module of RTLIL text: its attributes, name, lines, and the modules of its cells."""

    path: str
    head: list[str]
    body: list[str]
    children: list[str] = field(default_factory=list)


def convert(component: wiring.Component, name: str) -> str:
    """Verilog of a component and of all below it; the ports of the top are named as its members.

    Components with the same netlist share a module. Modules are named after the component's class, or its
    attribute `verilog_name`; where netlists of one class differ, the name of the submodule follows.
    """
    ports: dict[str, Any] = {}
    for path, member, value in component.signature.flatten(component):
        if isinstance(value, ValueCastable):
            value = value.as_value()
        direction = PortDirection.Input if member.flow == wiring.In else PortDirection.Output
        ports["__".join(map(str, path))] = (value, direction)
    fragment = Fragment.get(component, None)
    design = fragment.prepare(ports=ports, hierarchy=(name,))
    kinds = _kinds(design) | {name: name}
    text, _ = rtlil.convert_fragment(design, ports, name, emit_src=False)
    modules = _merge(_parse(_plain_names(text)), kinds)
    verilog = _to_verilog(modules)
    if re.search(r"^\s*lpu_ram\b", verilog, re.MULTILINE):
        verilog += "\n" + BUFFER_VERILOG.read_text()
    return verilog


def generate_verilog(spec: MachineSpec, trace: bool = False) -> str:
    """Verilog of the whole processor; the top module is `PROCESSOR`.

    Parameters
    ----------
    spec : MachineSpec
        The machine.
    trace : bool
        Adds the ports of the retirement trace.
    """
    from hw.core.processor import Processor

    banner = f"// OpenLPU flight processor, target {spec.name}, machine {spec.hash:08x}\n"
    return banner + convert(Processor(spec, trace), PROCESSOR)


def _kinds(design: Any) -> dict[str, str]:
    """Module name for each path of the hierarchy, without number."""
    kinds = {}
    for fragment, info in design.fragments.items():
        inner = [_inner(origin) for origin in fragment.origins or ()]
        origins = [origin for origin in inner if not isinstance(origin, Module | Fragment)]
        if origins:
            kind = getattr(origins[-1], "verilog_name", _snake(type(origins[-1]).__name__))
            kinds[".".join(info.name)] = PREFIX + kind
    return kinds


def _inner(origin: Elaboratable) -> Elaboratable:
    """What a wrapper such as a ResetInserter wraps."""
    return _inner(origin._elaboratable_) if isinstance(origin, TransformedElaboratable) else origin


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower().strip("_")


def _plain_names(text: str) -> str:
    """RTLIL text without dollar signs in public names: they would have to be escaped in Verilog."""
    numbered = re.compile(r"\\([A-Za-z_]\w*(?:\$\d+)+)")
    public = set(re.findall(r"\\(\w+)", text))
    plain = {name: name.replace("$", "_n") for name in set(numbered.findall(text))}
    clashes = public & set(plain.values())
    if clashes:
        raise ValueError(f"names that differ only in a dollar sign: {sorted(clashes)}")
    return numbered.sub(lambda match: "\\" + plain[match[1]], text)


def _parse(text: str) -> list[_RtlilModule]:
    """Modules of RTLIL text, without the initial contents of memories that are all zero."""
    modules: list[_RtlilModule] = []
    head: list[str] = []
    body: list[str] | None = None
    lines = iter(text.split("\n"))
    for line in lines:
        if body is None:
            if match := re.match(r"module \\(\S+)", line):
                body = []
                modules.append(_RtlilModule(match[1], head, body))
                head = []
            elif line.startswith("attribute"):
                head.append(line)
        elif line == "end":
            body = None
        elif line.startswith("  cell $meminit"):
            cell = [line]
            while cell[-1] != "  end":
                cell.append(next(lines))
            if any(re.search(r"\\DATA \d+'0*1", part) for part in cell):
                body += cell
        else:
            if match := re.match(r"  cell \\(\S+) ", line):
                modules[-1].children.append(match[1])
            body.append(line)
    for module in modules:
        module.body[:] = _sorted_ports(module.body)
    return modules


def _sorted_ports(body: list[str]) -> list[str]:
    """A module's lines with its ports first, by name: their order would differ between equal modules."""
    ports: list[tuple[str, str, str, list[str]]] = []
    rest: list[str] = []
    attributes: list[str] = []
    for line in body:
        if line.startswith("  attribute"):
            attributes.append(line)
            continue
        if match := re.match(r"(  wire width \d+) (input|output|inout) \d+ (.*)", line):
            ports.append((match[2], match[3].strip(), match[1], attributes))
        else:
            rest += [*attributes, line]
        attributes = []
    first = ["\\clk", "\\rst"]
    ports.sort(key=lambda port: (port[1] not in first, port[0], port[1]))
    lines = []
    for number, (direction, name, wire, own) in enumerate(ports):
        lines += [*own, f"{wire} {direction} {number} {name}"]
    return lines + rest


def _merge(modules: list[_RtlilModule], kinds: dict[str, str]) -> str:
    """RTLIL text in which equal modules are one, and all have their final names."""
    paths = {module.path for module in modules}
    names: dict[str, str] = {}
    by_content: dict[tuple[str, str], str] = {}
    variants: dict[str, dict[str, list[str]]] = {}
    result: list[str] = []
    # Deepest first, so that the names of a module's children are known.
    for module in sorted(modules, key=lambda m: -m.path.count(".")):
        body = "\n".join(module.body)
        for child in sorted(set(module.children) & paths, key=len, reverse=True):
            body = body.replace(f"  cell \\{child} ", f"  cell \\{names[child]} ")
        kind = kinds.get(module.path, PREFIX + _snake(module.path.rpartition(".")[2]))
        numbered = variants.setdefault(kind, {})
        if (kind, body) not in by_content:
            number = len(numbered) + 1
            by_content[kind, body] = kind if number == 1 else f"{kind}_{number}"
            result += [*module.head, f"module \\{by_content[kind, body]}", body, "end"]
        names[module.path] = by_content[kind, body]
        numbered.setdefault(names[module.path], []).append(module.path)
    final = _variant_names(variants)
    replace = re.compile(r"^(module|  cell) \\(\w+)", re.MULTILINE)
    text = "\n".join(result) + "\n"
    return replace.sub(lambda found: f"{found[1]} \\{final.get(found[2], found[2])}", text)


def _variant_names(variants: dict[str, dict[str, list[str]]]) -> dict[str, str]:
    """New names of the modules that differ from others of their kind: after the submodules that they are.

    Parameters
    ----------
    variants : dict of str to dict of str to list of str
        Kind -> numbered name -> paths of the instances.
    """
    taken = {name for numbered in variants.values() for name in numbered}
    final: dict[str, str] = {}
    for kind, numbered in variants.items():
        if len(numbered) == 1:
            continue
        start = kind.removeprefix(PREFIX) + "_"
        for name, paths in numbered.items():
            # Numbers tell copies apart, or are Amaranth's; it calls the nameless U.
            parts = [re.sub(r"(_n|\$|_)\d+$", "", part) for part in paths[0].split(".")]
            for depth in (1, 2):
                suffix = "_".join(parts[-depth:]).removeprefix(start)
                chosen = f"{kind}_{suffix}"
                if parts[-1] != "U" and chosen not in taken:
                    final[name] = chosen
                    taken.add(chosen)
                    break
    return final


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
        "proc -nomux -norom",
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
