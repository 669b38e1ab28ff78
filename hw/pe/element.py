"""What all processing elements share: ports, the pipeline cut, and a factory by name."""

import importlib

from amaranth.hdl import Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.spec.processing_element import ProcessingElementSpec

__all__ = ["ProcessingElement", "make_element"]

_CLASSES = {
    "int8": "integer.IntegerElement",
    "int8-booth": "booth.BoothElement",
    "int8-tree": "tree.TreeElement",
    "int8-acc29": "integer.IntegerElement",
    "int4x8": "integer.IntegerElement",
    "int4x8-acc32": "integer.IntegerElement",
    "mixpe-a8": "shift_add.ShiftAddElement",
    "mixpe-a8-unsigned": "shift_add.ShiftAddElement",
    "mixpe-a8-edge": "shift_add.ShiftAddElement",
    "mixpe-a8-acc32": "shift_add.ShiftAddElement",
    "mixpe-a8-unsigned-acc32": "shift_add.ShiftAddElement",
    "mixpe-a8-edge-acc32": "shift_add.ShiftAddElement",
    "mixpe-a8-recoded": "booth.BoothElement",
    "mixpe-a8-recoded-acc18": "booth.BoothElement",
    "dequant-int8": "dequantizing.DequantizingInt8Element",
    "mixpe-a16": "shift_add_float.ShiftAddFloatElement",
    "mixpe-a16-literal": "exponent_add.ExponentAddElement",
    "dequant-fp16": "dequantizing.DequantizingFloatElement",
    "fp16": "float_multiply.FloatMultiplyElement",
    "fp8-e4m3": "float_multiply.FloatMultiplyElement",
    "fp8-e5m2": "float_multiply.FloatMultiplyElement",
    "mxfp4": "mxfp4.Mxfp4Element",
    "mxfp4-a8": "mxfp4.Mxfp4Element",
    "bitfusion": "bitfusion.FusionElement",
    "ant": "decoded.DecodedElement",
    "olive": "decoded.DecodedElement",
    "tender": "tender.TenderElement",
    "bitmod": "bitmod.BitModElement",
    "figna": "integer.IntegerElement",
    "figna-24": "integer.IntegerElement",
    "prealigned-12": "shift_add.ShiftAddElement",
}


class ProcessingElement(wiring.Component):
    """One multiplication and one addition to a sum in each valid cycle.

    No flow control. The product is registered, the sum is registered, operands are not: the array has
    registers for them. Latency `spec.latency`, one operand set a cycle. A subclass gives `product`,
    and `accumulate` where the sum is not a plain integer.

    In a cycle without `valid` an operand is forced to zero, and so the product, and the sum goes on
    with nothing added: fewer gates than a multiplexer for each bit of the sum. Elements whose products
    have a sign of zero or a NaN hold their sum instead (`HOLDS`).

    Parameters
    ----------
    spec : ProcessingElementSpec
        Formats and widths.

    Members
    -------
    weight : In(unsigned(spec.weight_bits))
        Bits of the weight operands; the lowest bits are the first operand.
    activation : In(unsigned(spec.activation_bits))
        Bits of the activation operands.
    valid : In(1)
        The operands of this cycle are to be multiplied and added.
    clear : In(1)
        With `valid`: the sum begins with this product.
    control : In(unsigned(spec.control_bits))
        Only where the element has one; its meaning is the element's.
    sum : Out(signed(spec.accumulator_bits)) or Out(unsigned(32))
        The sum, an integer or the bits of an FP32 number. Unknown until the first `clear`.
    """

    weight: Value
    activation: Value
    valid: Value
    clear: Value
    control: Value
    sum: Value

    def __init__(self, spec: ProcessingElementSpec) -> None:
        self.spec = spec
        total = unsigned(32) if spec.fp32 else signed(spec.accumulator_bits)
        members = {
            "weight": In(unsigned(spec.weight_bits)),
            "activation": In(unsigned(spec.activation_bits)),
            "valid": In(1),
            "clear": In(1),
            "sum": Out(total),
        }
        if spec.control_bits:
            members["control"] = In(unsigned(spec.control_bits))
        super().__init__(members)

    #: The sum register has an enable.
    HOLDS = False
    #: The operand that is zero without `valid`.
    GATED = "weight"

    def product(self, m: Module, weight: Value, activation: Value) -> Value:
        """The product of the operands, `spec.product_bits` wide; combinational."""
        raise NotImplementedError

    def accumulate(self, m: Module, product: Value, clear: Value) -> Value:
        """The next sum; combinational.

        Parameters
        ----------
        product : Value
            What `product` returned, one cycle later.
        clear : Value
            The sum begins with this product.
        """
        return Mux(clear, 0, self.sum) + product

    def elaborate(self, platform: object) -> Module:
        m = Module()

        # Stage 1: the product. The same cut in all elements, or their areas could not be compared.
        operands = {"weight": self.weight, "activation": self.activation}
        if not self.HOLDS:
            operand = operands[self.GATED]
            operands[self.GATED] = gated = Signal.like(operand, name=f"{self.GATED}_gated")
            m.d.comb += gated.eq(operand & self.valid.replicate(len(operand)))
        value = self.product(m, **operands)
        product = Signal(Shape.cast(value.shape()), name="product_1", reset_less=True)
        if len(product) != self.spec.product_bits:
            raise ValueError(
                f"{self.spec.name}: the product has {len(product)} bits, "
                f"not {self.spec.product_bits} as its spec says"
            )
        clear = Signal(name="clear_1", reset_less=True)
        first = self.clear if self.HOLDS else self.clear & self.valid
        m.d.sync += [product.eq(value), clear.eq(first)]

        # Stage 2: the sum, in the output register.
        total = Signal.like(self.sum, name="sum_2", reset_less=True)
        m.d.comb += self.sum.eq(total)
        upto = self.accumulate(m, product, clear)
        if self.HOLDS:
            valid = Signal(name="valid_1")
            m.d.sync += valid.eq(self.valid)
            with m.If(valid):
                m.d.sync += total.eq(upto)
        else:
            m.d.sync += total.eq(upto)
        return m


def make_element(spec: ProcessingElementSpec) -> ProcessingElement:
    """The element of a spec from the registry, or of one with another accumulator."""
    module, name = _CLASSES[spec.name].split(".")
    return getattr(importlib.import_module(f"hw.pe.{module}"), name)(spec)
