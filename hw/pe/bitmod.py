"""BitMoD: four FP16 activations times one signed power of two of each weight, a cycle for each term."""

from amaranth.hdl import Cat, Const, Module, Mux, Value

from hw.floating_values import named
from hw.pe.float_element import FloatElement, RawProduct
from hw.spec.processing_element import BIT_TERM_BITS, BIT_TERM_LANES, BITMOD_GUARD_BITS

__all__ = ["BitModElement"]

MAGNITUDE_BITS = 15 + BITMOD_GUARD_BITS


class BitModElement(FloatElement):
    """Sum of four shifted activations, aligned to the largest exponent among them; FP32 sum.

    A term is an exponent 0 to 4 (others are not to be used), a bit that says that there is a term, and
    a sign. FP3 and FP4 weights with their special values, doubled, need two terms at most: two cycles
    for four products.

    Not IEEE 754: activation bits below ``2**-BITMOD_GUARD_BITS`` of the last bit of the largest
    activation are cut off in magnitude, and an exponent field of all ones is an ordinary number.
    Chen et al., "BitMoD: Bit-serial Mixture-of-Datatype LLM Acceleration", HPCA 2025; the paper does
    not state how many bits its alignment keeps.
    """

    LOWEST = 127 - 24 - BITMOD_GUARD_BITS
    LARGEST_EXPONENT = 30
    MAGNITUDE_BITS = MAGNITUDE_BITS + 2
    HAS_INFINITY = False
    HAS_NAN = False

    def multiply(self, m: Module) -> RawProduct:
        lanes = [
            self._lane(m, i, self.activation.word_select(i, 16), self._term(i))
            for i in range(BIT_TERM_LANES)
        ]
        pairs = [
            named(m, f"larger_{i}", Mux(a[0] > b[0], a[0], b[0]))
            for i, (a, b) in enumerate((lanes[:2], lanes[2:]))
        ]
        largest = named(m, "largest", Mux(pairs[0] > pairs[1], *pairs))
        total: Value = Const(0, 1)
        for i, (exponent, magnitude, negative) in enumerate(lanes):
            distance = named(m, f"distance_{i}", (largest - exponent)[:5])
            aligned = named(m, f"aligned_{i}", magnitude >> distance)
            signed_value = named(m, f"signed_{i}", Mux(negative, -aligned, aligned))
            total = total + signed_value
        total = named(m, "total", total)
        sign = total[-1]
        magnitude = (total ^ sign.replicate(len(total))) + sign
        return RawProduct(sign, largest, named(m, "magnitude", magnitude[: self.MAGNITUDE_BITS]))

    def _term(self, lane: int) -> Value:
        return self.weight.word_select(lane, BIT_TERM_BITS)

    def _lane(self, m: Module, lane: int, activation: Value, term: Value) -> tuple[Value, ...]:
        """Exponent, magnitude and sign of one lane's term."""
        normal = activation[10:15].any()
        exponent = named(m, f"exponent_{lane}", (activation[10:15] - normal)[:5])
        significand = Cat(activation[:10], normal) & term[3].replicate(11)
        shifted = named(m, f"shifted_{lane}", (significand << term[:3])[:15])
        guarded = Cat(Const(0, BITMOD_GUARD_BITS), shifted)
        return exponent, guarded, activation[15] ^ term[4]
