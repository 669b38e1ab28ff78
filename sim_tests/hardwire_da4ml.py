"""da4ml's adder graph for the same matrix, through the same Yosys script; it is an extra and may be absent.

da4ml (Sun et al., TRETS 2025; LGPL) shares sums between the outputs of a constant matrix, in parallel. It is
called, not copied; the Verilog that it writes goes to Yosys and nowhere else.
"""

import importlib
import importlib.util
import time
from pathlib import Path
from typing import Any

import numpy as np

from emulator.hardwired.product import multiply
from hw.hardwired.counts import CELL_AREA
from hw.hardwired.operator import OperatorSpec
from hw.spec.errors import CheckFailed
from sim_tests.hardwire_synthesis import TOP, lut_figures_of

__all__ = ["MAXIMUM_WEIGHTS", "da4ml_figures", "is_installed"]

MAXIMUM_WEIGHTS = 4096
"""Its search takes minutes for larger matrices."""
CHECKED_VECTORS = 32
ADD, SUBTRACT = 0, 1
VERILOG_PARTS = ("shift_adder.v", "negative.v")
"""Modules that a linear graph consists of; others need files beside them."""


def is_installed() -> bool:
    """Whether da4ml can be imported."""
    return importlib.util.find_spec("da4ml") is not None


def da4ml_figures(spec: OperatorSpec, synthesis: bool) -> dict[str, Any]:
    """Adders, adder bits, seconds, and LUTs of da4ml's graph.

    Parameters
    ----------
    synthesis : bool
        Run Yosys.

    Raises
    ------
    CheckFailed
        If its graph does not compute the product.
    """
    solver = importlib.import_module("da4ml.cmvm")
    began = time.perf_counter()
    # It reads memory in the order of rows, whatever the strides say.
    kernel = np.ascontiguousarray(np.array(spec.weights, np.float32).T)
    graph = solver.solve(kernel, qintervals=[(-128.0, 127.0, 1.0)] * spec.inputs)
    seconds = time.perf_counter() - began
    _check(graph, spec)
    adders = [op for part in graph.solutions for op in part.ops if op.opcode in (ADD, SUBTRACT)]
    bits = sum(_width(op.qint) for op in adders)
    weights = spec.inputs * spec.outputs
    figures: dict[str, Any] = {
        "adders": len(adders),
        "adders_per_weight": len(adders) / weights,
        "full_adders": bits,
        "area": bits * CELL_AREA["full_adders"],
        "cycles": 1,
        "seconds": seconds,
    }
    if synthesis:
        figures |= lut_figures_of(_verilog(graph), weights)
    return figures


def _width(interval: Any) -> int:
    """Bits of a number between the ends of an interval, in its steps."""
    low, high = round(interval.min / interval.step), round(interval.max / interval.step)
    return max(abs(low) - (low < 0), abs(high)).bit_length() + (low < 0)


def _check(graph: Any, spec: OperatorSpec) -> None:
    vectors = np.random.default_rng(3).integers(-128, 128, (CHECKED_VECTORS, spec.inputs))
    wanted = multiply(spec.weights, vectors)
    for vector, result in zip(vectors.astype(np.float64), wanted.tolist(), strict=True):
        if [int(value) for value in graph(vector)] != result:
            raise CheckFailed("da4ml: its graph does not compute the product")


def _verilog(graph: Any) -> str:
    """Its stages one after another, and the modules that they are made of."""
    comb = importlib.import_module("da4ml.codegen.rtl.verilog.comb")
    source = Path(comb.__file__ or "").with_name("source")
    parts = [(source / name).read_text() for name in VERILOG_PARTS]
    parts += [comb.comb_logic_gen(s, f"stage{k}") for k, s in enumerate(graph.solutions)]
    widths = [sum(_port_bits(q) for q in s.out_qint) for s in graph.solutions]
    inputs = 8 * len(graph.solutions[0].inp_qint)
    lines = [f"module {TOP}(input [{inputs - 1}:0] x, output [{widths[-1] - 1}:0] y);"]
    before = "x"
    for index, width in enumerate(widths):
        lines.append(f"  wire [{width - 1}:0] s{index};")
        lines.append(f"  stage{index} p{index}(.model_inp({before}), .model_out(s{index}));")
        before = f"s{index}"
    return "\n".join([*parts, *lines, f"  assign y = {before};", "endmodule", ""])


def _port_bits(interval: Any) -> int:
    return 0 if interval.min == interval.max == 0 else _width(interval)
