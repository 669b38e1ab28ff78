"""Runs the bench of a bank of hardwired matrices of different shapes."""

import numpy as np

from hw.hardwired.matrix import BankSpec, MatrixSpec, bank_verilog
from hw.hardwired.operator import OperatorSpec
from sim_tests.bench import run_bench


def test_bank() -> None:
    rng = np.random.default_rng(2)
    matrices = []
    for name, (outputs, inputs), bits in (("a", (5, 10), 1), ("b", (2, 4), 4), ("c", (9, 3), 8)):
        weights = rng.choice([0, 1, -2, 3, -4, 6, 8, -12], (outputs, inputs)).tolist()
        biases = rng.integers(-99, 99, outputs).tolist()
        operator = OperatorSpec(tuple(map(tuple, weights)), tuple(biases), bits)
        matrices.append(MatrixSpec(operator=operator, lanes=4, result_lanes=2, name=name))
    spec = BankSpec(matrices=tuple(matrices))
    parameters = {
        "lanes": 4,
        "result_lanes": 2,
        "select_bits": 2,
        "result_bits": spec.result_bits,
        "matrices": [
            {"weights": m.operator.weights, "biases": m.operator.biases, "latency": m.latency}
            for m in matrices
        ],
    }
    verilog = bank_verilog(spec, "top")
    bench = "sim_tests.bench_hardwired_bank"
    assert run_bench("hardwired_bank", verilog, bench, parameters=parameters).tests == 10
