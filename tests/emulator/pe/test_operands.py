"""Operand values against numbers known from the formats' specifications."""

import numpy as np
import pytest

from emulator.pe.golden import products, sums
from emulator.pe.operands import decode, signed_value, split
from hw.spec.element_family import ELEMENTS, element_spec
from hw.spec.processing_element import Operand


def test_e4m3() -> None:
    codes = [0x00, 0x01, 0x07, 0x08, 0x38, 0x7E, 0x80, 0xFE]
    wanted = [0, 2**-9, 7 * 2**-9, 2**-6, 1, 448, 0, -448]
    assert decode(Operand.E4M3, codes).tolist() == wanted
    assert np.isnan(decode(Operand.E4M3, [0x7F, 0xFF])).all()


def test_e5m2() -> None:
    codes = [0x01, 0x3C, 0x7B, 0x7C, 0xFC]
    assert decode(Operand.E5M2, codes).tolist() == [2**-16, 1, 57344, np.inf, -np.inf]
    assert np.isnan(decode(Operand.E5M2, [0x7D, 0x7E, 0xFF])).all()


def test_integers_and_lanes() -> None:
    assert signed_value([7, 8, 15], 4).tolist() == [7, -8, -1]
    assert decode(Operand.UINT4, [8, 15]).tolist() == [8, 15]
    assert split(np.uint64(0xFEDC_0000_0000_0001), 16, 4).tolist() == [1, 0, 0, 0xFEDC]


@pytest.mark.parametrize("name", [name for name, spec in ELEMENTS.items() if not spec.fp32])
def test_a_group_of_128_legal_products_fits_its_accumulator(name: str) -> None:
    spec = element_spec(name)
    if name in ("tender", "bitfusion", "dequant-int8"):
        pytest.skip("its sums depend on a control input")
    largest = {Operand.DECODED_FLINT: 16, Operand.DECODED_OLIVE: 96, Operand.E2M1: 12}
    bounds = []
    for operand, bits in ((spec.weight, spec.weight_bits), (spec.activation, spec.activation_bits)):
        # Of an activation, the lowest code is not used where the accumulator asks for that.
        symmetric = operand is spec.activation and name in (
            "mixpe-a8-recoded-acc18",
            "prealigned-12",
        )
        top = 15 if operand is Operand.UINT4 else (1 << (bits - 1)) - symmetric
        bounds.append(largest.get(operand, top))
    count = 32 if spec.weight is Operand.E2M1 else 128
    assert count * bounds[0] * bounds[1] <= (1 << (spec.accumulator_bits - 1)) - 1


def test_a_sum_begins_with_minus_zero() -> None:
    spec = element_spec("fp16")
    minus_zero = sums(spec, [0x8000], [0x3C00], True, True)
    assert minus_zero.tolist() == [0x80000000]
    with_zero = sums(spec, [0x8000, 0x0000], [0x3C00, 0x3C00], True, [True, False])
    assert with_zero.tolist()[1] == 0


def test_in_element_dequantization_rounds_to_fp16() -> None:
    spec = element_spec("dequant-fp16")
    scale = int(np.float16(0.1).view(np.uint16))
    value = products(spec, [15], [0x3C00], [scale | 1 << 16])
    assert value.tolist() == [float(np.float16(np.float16(0.1) * np.float16(14)))]
