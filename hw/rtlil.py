"""RTLIL text of a design, in which equal modules become one, under names that a reader can use."""

import re
from dataclasses import dataclass, field

__all__ = ["share_modules", "snake"]


@dataclass
class _RtlilModule:
    """One module of RTLIL text: its attributes, name, lines, and the modules of its cells."""

    path: str
    head: list[str]
    body: list[str]
    children: list[str] = field(default_factory=list)


def share_modules(text: str, kinds: dict[str, str], prefix: str) -> str:
    """RTLIL text with one module for each kind of component.

    Parameters
    ----------
    text : str
        What Amaranth writes: a module for each place in the hierarchy, named by its path.
    kinds : dict of str to str
        Name of the module by path; if it is not known, `prefix` and the submodule's name.
    """
    return _merge(_parse(_plain_names(text)), kinds, prefix)


def snake(name: str) -> str:
    """The name of a class as that of a module."""
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
    _number_ports(modules)
    for module in modules:
        module.body[:] = _sorted_ports(module.body)
    return modules


_NAMELESS = re.compile(r"\\port_n\d+_n\d+(?= |$)")
"""Ports for what has no name of its own; the numbers are those of cells of the whole design."""


def _number_ports(modules: list[_RtlilModule]) -> None:
    """Name nameless ports in the order of their use, so that equal modules are equal here too."""
    names = {module.path: _port_names(module) for module in modules}
    for module in modules:
        own = names[module.path]
        inner: dict[str, str] = {}  # of the module of the cell
        for number, line in enumerate(module.body):
            if match := re.match(r"  cell \\(\S+) ", line):
                inner = names.get(match[1], {})
            kept = ""
            if line.startswith("    connect \\"):
                port, _, line = line.removeprefix("    connect ").partition(" ")
                kept = f"    connect {inner.get(port, port)} "
            line = _NAMELESS.sub(lambda name, own=own: own.get(name[0], name[0]), line)
            module.body[number] = kept + line


def _port_names(module: _RtlilModule) -> dict[str, str]:
    """New names of a module's nameless ports."""
    ports: set[str] = set()
    used: dict[str, None] = {}
    for line in module.body:
        if re.match(r"  wire .*(input|output|inout) \d+ ", line):
            ports.update(_NAMELESS.findall(line))
        elif not line.startswith("  wire"):
            # The first name of a cell's connection is the other module's.
            own = re.sub(r"^    connect \\\S+ ", "", line)
            used |= dict.fromkeys(_NAMELESS.findall(own))
    order = [name for name in used if name in ports] + sorted(ports - set(used))
    return {name: f"\\nameless_{number}" for number, name in enumerate(order)}


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


def _merge(modules: list[_RtlilModule], kinds: dict[str, str], prefix: str) -> str:
    """RTLIL text in which equal modules are one, and all have their final names."""
    paths = {module.path for module in modules}
    names: dict[str, str] = {}
    by_content: dict[tuple[str, str], str] = {}
    variants: dict[str, dict[str, list[str]]] = {}
    result: list[str] = []
    # Deepest first, so that the names of a module's children are known.
    depths = _depths(modules)
    for module in sorted(modules, key=lambda m: -depths[m.path]):
        body = "\n".join(module.body)
        for child in sorted(set(module.children) & paths, key=len, reverse=True):
            body = body.replace(f"  cell \\{child} ", f"  cell \\{names[child]} ")
        kind = kinds.get(module.path, prefix + snake(module.path.rpartition(".")[2]))
        numbered = variants.setdefault(kind, {})
        if (kind, body) not in by_content:
            number = len(numbered) + 1
            by_content[kind, body] = kind if number == 1 else f"{kind}_{number}"
            result += [*module.head, f"module \\{by_content[kind, body]}", body, "end"]
        names[module.path] = by_content[kind, body]
        numbered.setdefault(names[module.path], []).append(module.path)
    final = _variant_names(variants, prefix)
    replace = re.compile(r"^(module|  cell) \\(\w+)", re.MULTILINE)
    text = "\n".join(result) + "\n"
    return replace.sub(lambda found: f"{found[1]} \\{final.get(found[2], found[2])}", text)


def _depths(modules: list[_RtlilModule]) -> dict[str, int]:
    """How far below the top each module is, at most."""
    children = {module.path: module.children for module in modules}
    depths = dict.fromkeys(children, 0)
    pending = [modules[0].path]
    while pending:
        path = pending.pop()
        for child in children[path]:
            if child in depths and depths[child] <= depths[path]:
                depths[child] = depths[path] + 1
                pending.append(child)
    return depths


def _variant_names(variants: dict[str, dict[str, list[str]]], prefix: str) -> dict[str, str]:
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
        start = kind.removeprefix(prefix) + "_"
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
