"""Base netlists and metal programs of a whole model: all hardwired matrices of a program, each with its proof."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from emulator.hardwired.weights import SmallWeights
from hw.hardwired.base import BaseSpec, plan_base
from hw.spec.errors import InputError
from hw.spec.output import atomic_write
from hw.spec.program import Program
from hw.spec.wires import WiredMatrix, WiredShape
from sim_tests.hardwire_generate import generate

__all__ = ["generate_model", "plan_bases"]


def plan_bases(program: Program) -> dict[WiredShape, BaseSpec]:
    """Silicon for each shape of hardwired matrices, planned for the weights of all matrices of that shape.

    Raises
    ------
    InputError
        If the program's machine has no hardwired matrices.
    """
    bases = {}
    for shape in dict.fromkeys(program.machine.wired_matrices):
        values = np.concatenate([m.values for m in _matrices(program) if m.shape == shape])
        shares = _small(values, program).shares()
        bits = program.machine.wired_bits
        bases[shape] = plan_base(shape.inputs, shape.outputs, shares, bits=bits)
    return bases


def generate_model(program: Program, folder: Path) -> list[dict[str, Any]]:
    """Write a folder for each matrix, as `generate` does; their reports in the order of the numbers.

    Matrices of one shape have the same base netlist, to the byte: their metal programs alone differ.

    Raises
    ------
    InputError
        If the program has no hardwired matrices, or weights do not fit.
    CheckFailed
        If a base and a metal program are not the weights.
    """
    bases, reports = plan_bases(program), []
    with atomic_write(folder) as part:
        part.mkdir()
        for matrix in _matrices(program):
            weights = replace(_small(matrix.values, program), source=matrix.name)
            report = generate(weights, bases[matrix.shape], part / matrix.name)
            reports.append({"matrix": matrix.name, "shape": str(matrix.shape), **report})
    return reports


def _matrices(program: Program) -> tuple[WiredMatrix, ...]:
    if program.wires is None:
        raise InputError(
            f"program of {program.information.get('model', 'a model')} on {program.machine.name}: expected one whose "
            "weights are wires; compile it for such a target, as hardwired-tiny"
        )
    return program.wires.matrices


def _small(values: np.ndarray[Any, Any], program: Program) -> SmallWeights:
    """Integers without block scales: what is left of a row is one factor, which the matrix engine multiplies by."""
    zeros = np.zeros((len(values), 1), np.int64)
    return SmallWeights(values.astype(np.int64), zeros, str(program.information.get("model")))
