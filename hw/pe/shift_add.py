"""MixPE's element for 4-bit weights and 8-bit activations: shifted copies instead of a multiplier."""

from amaranth.hdl import Module, Mux, Value

from hw.pe.element import ProcessingElement
from hw.spec.processing_element import Operand

__all__ = ["ShiftAddElement", "shift_add"]


def shift_add(m: Module, multiplicand: Value, multiplier: Value, signed: bool) -> Value:
    """``multiplicand * multiplier`` as a sum of shifted copies, one for each bit of the multiplier.

    Parameters
    ----------
    multiplicand : Value
        Signed or unsigned.
    multiplier : Value
        Read bit by bit; its top bit weighs negatively if `signed`.

    Returns
    -------
    Value
        Signed if either is; may be wider than the product needs.
    """
    terms = [Mux(bit, multiplicand, 0) << place for place, bit in enumerate(multiplier)]
    if signed:
        terms[-2:] = [terms[-2] - terms[-1]]
    # In pairs: the depth of a tree, not of a chain.
    while len(terms) > 1:
        pairs = [a + b for a, b in zip(terms[0::2], terms[1::2], strict=False)]
        terms = pairs + terms[2 * len(pairs) :]
    return terms[0]


class ShiftAddElement(ProcessingElement):
    """``b0*x + 2*b1*x + 4*b2*x - 8*b3*x``, three adders and no multiplier; the sum wraps.

    With an unsigned weight the last term is added too; a 5-bit weight has one term more.

    MixPE: Zhang et al., "MixPE: Quantization and Hardware Co-design for Efficient LLM Inference",
    arXiv 2411.16158.
    """

    def product(self, m: Module, weight: Value, activation: Value) -> Value:
        product = shift_add(
            m,
            activation.as_signed(),
            weight,
            signed=self.spec.weight is not Operand.UINT4,
        )
        return product[: self.spec.product_bits].as_signed()
