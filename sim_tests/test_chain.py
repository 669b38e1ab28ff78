"""Runs the bench of the sparse chain on several geometries and multipliers."""

from dataclasses import asdict

import pytest

from hw.core.chain import Chain, chain_input_layout, chain_output_layout
from hw.spec.chain import ChainSpec
from hw.spec.dsp import Multiplier
from sim_tests.bench import layout_fields, run_bench

SPECS = {
    # Full INT8: the low lane is adjusted twice.
    "int8": ChainSpec(tag_bits=8),
    # INT4 weights: never.
    "int4": ChainSpec(weight_magnitude=8),
    # Weights without -128: once, where 8:16 ends anyway; with a register in fabric.
    "symmetric": ChainSpec(weight_magnitude=127, adjust_registers=2, tag_bits=3),
    "short": ChainSpec(cells=8, multiplier=Multiplier.INFERRED),
    "fours": ChainSpec(group=4, multiplier=Multiplier.ECP5_MODEL),
}

QUICK = ("int8", "short")


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(spec, id=name, marks=[] if name in QUICK else pytest.mark.slow)
        for name, spec in SPECS.items()
    ],
)
def test_chain(spec: ChainSpec, request: pytest.FixtureRequest) -> None:
    fields = asdict(spec) | {"multiplier": spec.multiplier.value}
    layouts = [layout_fields(f(spec)) for f in (chain_input_layout, chain_output_layout)]
    result = run_bench(
        f"chain_{request.node.callspec.id}",
        lambda: Chain(spec),
        "sim_tests.bench_chain",
        parameters={"spec": fields, "layouts": layouts},
    )
    assert result.tests == 12
