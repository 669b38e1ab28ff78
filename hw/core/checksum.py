"""CRC-32 of a sequence of words, one word a cycle: the checksum of the retirement trace."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Checksum", "checksum_columns"]

POLYNOMIAL = 0xEDB88320
"""CRC-32 of IEEE 802.3, bit-reversed, as zlib has it."""
BITS = 32


def checksum_columns(count: int) -> list[int]:
    """What each of `count` message bits, the first sent first, adds to the remainder."""
    columns = [POLYNOMIAL]
    while len(columns) < count:
        later = columns[-1]
        columns.append(later >> 1 ^ (POLYNOMIAL if later & 1 else 0))
    return columns[::-1]


class Checksum(wiring.Component):
    """CRC-32, equal to `zlib.crc32`, of all words since the first of an instruction.

    A remainder is linear in the message and in the remainder before it, so a whole word is taken at
    once: each bit of the next remainder is the parity of a fixed choice of bits.

    Parameters
    ----------
    bytes : int
        Bytes of a word, at least 1; byte 0, in the lowest bits, comes first.

    Members
    -------
    start : In(1)
        This word is the first: forget all words before it. Has no effect without `valid`.
    valid : In(1)
        `data` is a word.
    data : In(8 * bytes)
        The word.
    value : Out(32)
        Checksum, from the cycle after each word on.
    """

    start: Value
    valid: Value
    data: Value
    value: Value

    def __init__(self, bytes: int) -> None:
        self.bytes = bytes
        super().__init__({
            "start": In(1),
            "valid": In(1),
            "data": In(8 * bytes),
            "value": Out(BITS),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = 8 * self.bytes
        columns = checksum_columns(width)

        # The register holds the inverted remainder, which is what zlib returns.
        remainder = Signal(BITS)
        message = Signal(width)
        m.d.comb += [
            remainder.eq(Mux(self.start, (1 << BITS) - 1, ~self.value)),
            message.eq(self.data ^ remainder[:width]),
        ]
        parities = []
        for bit in range(BITS):
            chosen = sum((columns[i] >> bit & 1) << i for i in range(width))
            parities.append((message & Const(chosen, width)).xor())
        # A word shorter than the remainder leaves some of it, moved down.
        left = remainder[width:] if width < BITS else Const(0, 1)
        with m.If(self.valid):
            m.d.sync += self.value.eq(~(Cat(parities) ^ left))
        return m
