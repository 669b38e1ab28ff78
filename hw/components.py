"""Components of a flight processor that are synthesized by themselves, and how many of each there are."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from amaranth.lib import wiring

from hw.core.chain import Chain, ChainDatapath
from hw.core.dsp48e2 import DSP48E2
from hw.core.index_decoder import IndexDecoder
from hw.core.pair_mac import PairMac
from hw.core.reduction_node import OverflowAdjust, ReductionNode
from hw.core.sparse_multiplexer import SparseMultiplexer
from hw.spec.chain import ChainSpec
from hw.spec.dsp import DspSpec, Multiplier
from hw.spec.machine import MachineSpec
from hw.verilog import PREFIX, convert

__all__ = ["COMPONENTS", "Component", "chains_of"]

ROWS_OF_A_CHAIN = 2
"""Rows of the matrix engine, of eight multipliers each, that are one chain."""


@dataclass(frozen=True)
class Component:
    """A component that can be built for one of several multipliers.

    Parameters
    ----------
    name : str
    build : function
        From the multiplier to the component.
    of_a_chain : int
        How many of it a chain has; 0 for what stands beside chains.
    critical : bool
        Whether its clock is of interest by itself.
    """

    name: str
    build: Callable[[Multiplier], wiring.Component]
    of_a_chain: int
    critical: bool

    @property
    def module(self) -> str:
        """Name of its Verilog module."""
        return PREFIX + self.name

    def verilog(self, multiplier: Multiplier) -> str:
        """Its Verilog, with that multiplier."""
        return convert(self.build(multiplier), self.module)


INT8 = ChainSpec()
INT4 = ChainSpec(weight_magnitude=8)


def _chain(spec: ChainSpec) -> Callable[[Multiplier], wiring.Component]:
    return lambda multiplier: Chain(replace(spec, multiplier=multiplier))


def _datapath(spec: ChainSpec) -> Callable[[Multiplier], wiring.Component]:
    return lambda multiplier: ChainDatapath(replace(spec, multiplier=multiplier))


def _dsp(multiplier: Multiplier) -> wiring.Component:
    return DSP48E2(DspSpec(), vendor=multiplier is Multiplier.DSP48E2)


COMPONENTS = {
    component.name: component
    for component in (
        Component("dsp48e2", _dsp, INT8.cells, False),
        Component("pair_mac", PairMac, INT8.cells, True),
        Component("sparse_multiplexer", lambda _: SparseMultiplexer(), INT8.cells, False),
        Component("reduction_node", lambda _: ReductionNode(INT8), INT8.outputs, False),
        Component(
            "overflow_adjust", lambda _: OverflowAdjust(INT8), len(INT8.adjusted_cells), False
        ),
        Component("chain_datapath", _datapath(INT8), 1, False),
        Component("chain_datapath_int4", _datapath(INT4), 1, False),
        # With the FIFO that lets it be stalled.
        Component("chain", _chain(INT8), 1, True),
        Component("index_decoder", lambda _: IndexDecoder(), 0, True),
    )
}


def chains_of(spec: MachineSpec) -> int:
    """Chains of a machine's matrix engine."""
    return spec.matrix_rows // ROWS_OF_A_CHAIN
