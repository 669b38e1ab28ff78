"""Tender: the accumulator shifts left between groups whose activation scales differ by powers of two."""

from amaranth.hdl import Module, Mux, Signal, Value

from hw.pe.element import ProcessingElement

__all__ = ["TenderElement"]


class TenderElement(ProcessingElement):
    """INT4 x INT4; with `control` the sum is doubled before the product is added; the sum wraps.

    Groups go from the largest scale to the smallest, and `control` marks the first product of each
    group but the first. Lee et al., "Tender: Accelerating Large Language Models via Tensor
    Decomposition and Runtime Requantization", ISCA 2024.
    """

    def product(self, m: Module, weight: Value, activation: Value) -> Value:
        return weight.as_signed() * activation.as_signed()

    def accumulate(self, m: Module, product: Value, clear: Value) -> Value:
        double = Signal(name="double_1", reset_less=True)
        m.d.sync += double.eq(self.control & self.valid)
        return Mux(clear, 0, Mux(double, self.sum << 1, self.sum)) + product
