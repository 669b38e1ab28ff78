"""The DSP48E2 slice: its registers and operation codes, and two products packed into one of its words.

Codes and register rules are those of the UltraScale DSP user guide (UG579); the packing is that of
"Deep Learning with INT8 Optimization on Xilinx Devices" (WP486).
"""

import enum
from dataclasses import dataclass

A_BITS = 30
"""Port A; the multiplier takes the low 27 bits."""
B_BITS = 18
D_BITS = 27
MULTIPLIER_BITS = 27
P_BITS = 48

LANE_BITS = 18
"""Distance of the two products in a word: ``((a << 18) + d) * b``."""
HIGH_BITS = P_BITS - LANE_BITS


class Multiplier(enum.Enum):
    """Who multiplies; chosen explicitly, never by the platform that a design is built for."""

    MODEL = "model"
    """The behavioural model of the DSP48E2: every simulation."""
    DSP48E2 = "dsp48e2"
    """The primitive of UltraScale and UltraScale+ parts, for vendor tools."""
    ECP5_MODEL = "ecp5_model"
    """The behavioural model of the ECP5's multiplier."""
    ECP5 = "ecp5"
    """The ECP5's primitive MULT18X18D."""
    INFERRED = "inferred"
    """A plain product, which any tool maps as it sees fit."""


class W(enum.IntEnum):
    """OPMODE[8:7]: fourth operand of the adder."""

    ZERO = 0b00
    P = 0b01
    RND = 0b10
    C = 0b11


class Z(enum.IntEnum):
    """OPMODE[6:4]: third operand of the adder; what is added to the product."""

    ZERO = 0b000
    PCIN = 0b001
    P = 0b010
    C = 0b011


class Y(enum.IntEnum):
    """OPMODE[3:2]: second operand; M is the product, and needs X = M too."""

    ZERO = 0b00
    M = 0b01
    ONES = 0b10
    C = 0b11


class X(enum.IntEnum):
    """OPMODE[1:0]: first operand; M is the product, and needs Y = M too."""

    ZERO = 0b00
    M = 0b01
    P = 0b10
    AB = 0b11


def opmode(w: W = W.ZERO, z: Z = Z.ZERO, y: Y = Y.M, x: X = X.M) -> int:
    """OPMODE code; without arguments, P is the product."""
    return w << 7 | z << 4 | y << 2 | x


INMODE_BITS = 5
INMODE_PREADD = 0b00100
"""Pre-adder gives D + A, from the last registers of A and B."""
INMODE_A = 0b00000
"""Pre-adder gives A."""


@dataclass(frozen=True, kw_only=True)
class DspSpec:
    """Registers of one DSP48E2 that adds (ALUMODE 0, no carry).

    The defaults are the fully registered packing of two products: A and D reach the product register
    after three cycles, and so does B, which has two registers because it skips the pre-adder.

    Parameters
    ----------
    a_registers, b_registers : int
        AREG, BREG: 0 to 2.
    c_registers, d_registers, preadd_registers, product_registers, sum_registers : int
        CREG, DREG, ADREG, MREG, PREG: 0 or 1.
    mode_registers : int
        OPMODEREG and INMODEREG: 0 or 1.
    preadder : bool
        The multiplier takes the pre-adder's output (AMULTSEL = "AD"), else A.
    joined : bool
        OPMODE may also select A and B side by side (USE_MULT = "DYNAMIC"), else always the product or
        nothing ("MULTIPLY").
    rounding : int
        The constant RND that W can select, 48 bits.
    """

    a_registers: int = 1
    b_registers: int = 2
    c_registers: int = 1
    d_registers: int = 1
    preadd_registers: int = 1
    product_registers: int = 1
    sum_registers: int = 1
    mode_registers: int = 1
    preadder: bool = True
    joined: bool = False
    rounding: int = 0

    def __post_init__(self) -> None:
        for name in ("a_registers", "b_registers"):
            if getattr(self, name) not in (0, 1, 2):
                raise ValueError(f"{name} must be 0, 1 or 2, not {getattr(self, name)!r}")
        for name in ("c", "d", "preadd", "product", "sum", "mode"):
            if getattr(self, f"{name}_registers") not in (0, 1):
                value = getattr(self, f"{name}_registers")
                raise ValueError(f"{name}_registers must be 0 or 1, not {value!r}")
        if not 0 <= self.rounding < 1 << P_BITS:
            raise ValueError(f"rounding must have {P_BITS} bits, not {self.rounding!r}")

    @property
    def operand_latency(self) -> int:
        """Cycles from A and D to P."""
        preadd = self.preadd_registers if self.preadder else 0
        return self.a_registers + preadd + self.product_registers + self.sum_registers


PAIR_LATENCY = DspSpec().operand_latency
"""Cycles from the operands of a packed pair of products to the sum that includes them."""
PAIR_CONTROL_DELAY = PAIR_LATENCY - 2
"""Cycles by which OPMODE and C, which have one register and the sum's, enter behind the operands."""


def safe_depth(largest_product: int, kept_bits: int = 0) -> int:
    """Products that a low lane takes without overflow, whatever their values.

    Parameters
    ----------
    largest_product : int
        Largest magnitude of a product.
    kept_bits : int
        The lane starts from an unsigned number of this many bits; 0 starts from zero.
    """
    room = (1 << LANE_BITS - 1) - (1 << kept_bits)
    return max(0, room) // largest_product


def bits_to_keep(largest_product: int, depth: int) -> int:
    """Most bits that a low lane may start with before `depth` further products.

    Raises
    ------
    ValueError
        If the products alone may overflow the lane.
    """
    fitting = [k for k in range(LANE_BITS) if safe_depth(largest_product, k) >= depth]
    if not fitting:
        raise ValueError(f"a lane cannot take {depth} products of up to {largest_product}")
    return fitting[-1]
