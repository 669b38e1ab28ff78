"""A cell library of this project's own, in units that need no process.

Area is in full adders of 28 transistors, capacitance in inputs of an inverter, delay in inverters that drive four.
"""

import re

from sim_tests.liberty import Library, parse_library

FULL_ADDER_TRANSISTORS = 28
"""Of a static CMOS full adder, the unit of area."""

# Name: function, transistors, logical effort of an input, parasitic delay; static CMOS, Sutherland,
# Sproull and Harris, "Logical Effort".
_GATES = {
    "INV": ("!A", 2, 1, 1),
    "NAND2": ("!(A*B)", 4, 4 / 3, 2),
    "NAND3": ("!(A*B*C)", 6, 5 / 3, 3),
    "NOR2": ("!(A+B)", 4, 5 / 3, 2),
    "NOR3": ("!(A+B+C)", 6, 7 / 3, 3),
    "AND2": ("A*B", 6, 4 / 3, 3),
    "OR2": ("A+B", 6, 5 / 3, 3),
    "AOI21": ("!((A*B)+C)", 6, 2, 7 / 3),
    "OAI21": ("!((A+B)*C)", 6, 2, 7 / 3),
    "AOI22": ("!((A*B)+(C*D))", 8, 2, 4),
    "OAI22": ("!((A+B)*(C+D))", 8, 2, 4),
    "XOR2": ("A^B", 10, 4, 4),
    "XNOR2": ("!(A^B)", 10, 4, 4),
    "MUX2": ("(A*!S)+(B*S)", 10, 2, 4),
    "BUF": ("A", 4, 1, 2),
}
_FLIP_FLOP_TRANSISTORS = 24
_FO4 = 5.0


def structural_library() -> Library:
    """Static CMOS gates counted in transistors, with delays by logical effort."""
    parts = [
        "library(structural) {",
        '  time_unit : "1FO4";',
        "  area_unit : FA;",
        "  nom_voltage : 1;",
        "  capacitive_load_unit (1,pf);",
        "  lu_table_template(linear) {",
        "    variable_1 : total_output_net_capacitance;",
        "    variable_2 : input_net_transition;",
        '    index_1 ("0, 100");',
        '    index_2 ("0, 100");',
        "  }",
    ]
    for name, (function, transistors, effort, parasitic) in _GATES.items():
        pins = sorted(set(re.findall(r"[A-Z]", function)))
        # A transistor pair drives one unit of load in one unit of time.
        parts += _cell_text(name, transistors, pins, effort, f'function : "{function}";', parasitic)
    parts += _cell_text("DFF", _FLIP_FLOP_TRANSISTORS, ["D", "CLK"], 1, 'function : "IQ";', 6)
    return parse_library("\n".join([*parts, "}"]), "structural library")


def _cell_text(
    name: str, transistors: int, pins: list[str], effort: float, function: str, parasitic: float
) -> list[str]:
    start, end = parasitic / _FO4, (parasitic + 100) / _FO4
    sequential = name == "DFF"
    lines = [f"  cell({name}) {{", f"    area : {transistors / FULL_ADDER_TRANSISTORS:.6f};"]
    if sequential:
        lines.append('    ff(IQ,IQN) { next_state : "D"; clocked_on : "CLK"; }')
    for pin in pins:
        clock = "clock : true; " * (pin == "CLK")
        lines.append(f"    pin({pin}) {{ direction : input; {clock}capacitance : {effort:.6f}; }}")
    lines.append(f"    pin(Y) {{ direction : output; {function}")
    for pin in ["CLK"] if sequential else pins:
        kind = " timing_type : rising_edge;" * sequential
        lines.append(f'      timing() {{ related_pin : "{pin}";{kind}')
        for table in ("cell_rise", "cell_fall", "rise_transition", "fall_transition"):
            values = f'"{start:.6f}, {start:.6f}", "{end:.6f}, {end:.6f}"'
            if table.endswith("transition"):
                values = '"0, 0", "0, 0"'
            lines.append(f"        {table}(linear) {{ values ({values}); }}")
        lines.append("      }")
    return [*lines, "    }", "  }"]
