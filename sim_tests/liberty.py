"""Cell libraries: the part of the Liberty format that area, delay and switching need."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hw.spec.errors import InputError

__all__ = ["Cell", "Library", "parse_library", "read_library"]

Table = npt.NDArray[np.float64]


@dataclass
class Group:
    """``kind(name) { attributes; groups }`` of a Liberty file."""

    kind: str
    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    groups: list["Group"] = field(default_factory=list)

    def of(self, kind: str) -> list["Group"]:
        """Inner groups of one kind."""
        return [group for group in self.groups if group.kind == kind]


@dataclass(frozen=True)
class Arc:
    """Delay and output transition over load (rows) and input transition (columns), the slower edge."""

    loads: Table
    transitions: Table
    delay: Table
    transition: Table

    def at(self, load: float, transition: float) -> tuple[float, float]:
        """Delay and transition; beyond the table they go on as at its edge."""
        return (
            _interpolate(self.delay, self.loads, self.transitions, load, transition),
            _interpolate(self.transition, self.loads, self.transitions, load, transition),
        )


@dataclass(frozen=True)
class Cell:
    """One cell.

    Parameters
    ----------
    area : float
        In the library's unit.
    capacitances : dict of str to float
        Of each input.
    function : str
        Of a cell with one output and no state, as the file says it; else empty.
    output : str
        Name of the one output, or of the first.
    data, clock : str
        Inputs of a flip-flop; empty in others.
    arcs : dict of str to Arc
        From each input to the output.
    """

    name: str
    area: float
    capacitances: dict[str, float]
    function: str
    output: str
    data: str
    clock: str
    arcs: dict[str, Arc]


@dataclass(frozen=True)
class Library:
    """A cell library; `text` is the file, `unit` names the unit of area, `time_unit` that of delay."""

    name: str
    text: str
    cells: dict[str, Cell]
    unit: str
    time_unit: str
    voltage: float
    capacitance_farads: float


def read_library(path: Path) -> Library:
    """Read a Liberty file.

    Raises
    ------
    InputError
        If it is not one, or lacks what area and delay need.
    """
    try:
        text = path.read_text()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected a Liberty file, found no text") from error
    return parse_library(text, str(path))


def parse_library(text: str, label: str) -> Library:
    """As `read_library`, of a text; `label` names it in messages."""
    try:
        top = _parse(text)
    except ValueError as error:
        raise InputError(f"{label}: expected a Liberty file: {error}") from error
    templates = {group.name: group for group in top.of("lu_table_template")}
    cells = {group.name: _cell(group, templates, label) for group in top.of("cell")}
    if not any(cell.clock for cell in cells.values()):
        raise InputError(
            f"{label}: cell: expected a flip-flop among {len(cells)} cells, found none"
        )
    scale, unit = _capacitive_unit(top.attributes.get("capacitive_load_unit", "(1,pf)"))
    return Library(
        name=top.name,
        text=text,
        cells=cells,
        unit=top.attributes.get("area_unit", "um2"),
        time_unit=top.attributes.get("time_unit", "1ns").lstrip("1"),
        voltage=float(top.attributes.get("nom_voltage", "1")),
        capacitance_farads=scale * unit,
    )


def _capacitive_unit(text: str) -> tuple[float, float]:
    number, _, unit = text.strip("() ").partition(",")
    return float(number), {"ff": 1e-15, "pf": 1e-12}.get(unit.strip().lower(), 1e-12)


_TOKEN = re.compile(r'"[^"]*"|[{}();:,]|[^\s{}();:,"]+')


def _parse(text: str) -> Group:
    """The library group of a file."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL).replace("\\\n", " ")
    tokens = iter(_TOKEN.findall(text))
    outside = Group("", "")
    _statements(tokens, outside)
    found = outside.of("library")
    if len(found) != 1:
        raise ValueError(f"found {len(found)} groups named library")
    return found[0]


def _statements(tokens: Iterator[str], into: Group) -> None:
    for word in tokens:
        if word == "}":
            return
        if word in ";,":
            continue
        mark = next(tokens, "")
        if mark == ":":
            value = []
            # The semicolon may be missing at the end of a line; a value is one word then.
            for part in tokens:
                if part == ";":
                    break
                value.append(part.strip('"'))
            into.attributes[word] = " ".join(value)
        elif mark == "(":
            arguments = []
            for part in tokens:
                if part == ")":
                    break
                arguments.append(part.strip('"') if part != "," else ",")
            inside = " ".join(arguments)
            after = next(tokens, "")
            if after == "{":
                group = Group(word, inside)
                into.groups.append(group)
                _statements(tokens, group)
            else:
                into.attributes[word] = f"({inside})"
                if after == "}":
                    return
        else:
            raise ValueError(f"found {word!r} before {mark!r}")


def _cell(group: Group, templates: dict[str, Group], label: str) -> Cell:
    pins = group.of("pin")
    inputs = [pin for pin in pins if pin.attributes.get("direction") == "input"]
    outputs = [pin for pin in pins if pin.attributes.get("direction") == "output"]
    storage = group.of("ff")
    try:
        area = float(group.attributes["area"])
        capacitances = {pin.name: float(pin.attributes["capacitance"]) for pin in inputs}
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{label}: cell {group.name}: expected numbers for area and capacitance, found {error}"
        ) from error
    plain = storage[0].attributes if storage and len(storage[0].attributes) == 2 else {}
    arcs = {}
    if outputs and (not storage or plain):
        for timing in outputs[0].of("timing"):
            arc = _arc(timing, templates)
            if arc is not None:
                for pin in timing.attributes.get("related_pin", "").split():
                    arcs[pin] = arc
    return Cell(
        name=group.name,
        area=area,
        capacitances=capacitances,
        function="" if storage or len(outputs) != 1 else outputs[0].attributes.get("function", ""),
        output=outputs[0].name if outputs else "",
        data=plain.get("next_state", ""),
        clock=plain.get("clocked_on", ""),
        arcs=arcs,
    )


def _arc(timing: Group, templates: dict[str, Group]) -> Arc | None:
    tables = {}
    for kind in ("cell_rise", "cell_fall", "rise_transition", "fall_transition"):
        for group in timing.of(kind):
            template = templates.get(group.name)
            if template is not None and "index_2" in template.attributes:
                tables[kind] = _table(group, template)
    if len(tables) < 4:
        return None
    rise, fall = tables["cell_rise"], tables["cell_fall"]
    slower = rise if rise[2].sum() >= fall[2].sum() else fall
    kind = "rise_transition" if slower is rise else "fall_transition"
    return Arc(slower[0], slower[1], slower[2], tables[kind][2])


def _numbers(text: str) -> Table:
    return np.array([float(number) for number in re.findall(r"[-+.\deE]+", text)])


def _table(group: Group, template: Group) -> tuple[Table, Table, Table]:
    """Axes for load and transition, and values with the load along the first axis."""
    axes = [
        _numbers(group.attributes.get(f"index_{i}", template.attributes.get(f"index_{i}", "")))
        for i in (1, 2)
    ]
    values = _numbers(group.attributes["values"]).reshape(len(axes[0]), len(axes[1]))
    if template.attributes.get("variable_1") == "input_net_transition":
        return axes[1], axes[0], values.T
    return axes[0], axes[1], values


def _interpolate(values: Table, rows: Table, columns: Table, row: float, column: float) -> float:
    i = int(np.clip(np.searchsorted(rows, row) - 1, 0, len(rows) - 2))
    j = int(np.clip(np.searchsorted(columns, column) - 1, 0, len(columns) - 2))
    y = (row - rows[i]) / (rows[i + 1] - rows[i])
    x = min((column - columns[j]) / (columns[j + 1] - columns[j]), 1.0)
    upper = values[i, j] * (1 - x) + values[i, j + 1] * x
    lower = values[i + 1, j] * (1 - x) + values[i + 1, j + 1] * x
    return float(upper * (1 - y) + lower * y)
