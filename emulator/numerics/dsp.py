"""Golden arithmetic of the DSP48E2 and of the two products that share one of its words."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from hw.spec.dsp import DspSpec

_WORD = 1 << 48


def _signed(value: int, bits: int) -> int:
    """`value` modulo 2**bits, as a signed number."""
    return (value + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)


class DspHistory:
    """P of a DSP48E2, from all inputs that it has had: what is behind r registers is r enabled cycles old.

    Parameters
    ----------
    spec : DspSpec
        Registers.
    """

    def __init__(self, spec: DspSpec) -> None:
        self.spec = spec
        self._inputs: list[Mapping[str, int]] = []
        self._sums: list[int] = []

    def cycle(self, inputs: Mapping[str, int], enable: bool) -> int:
        """P in a cycle with these inputs (a, b, c, d, inmode, opmode, pcin), and on to the next cycle."""
        self._inputs.append(inputs)
        self._sums.append(self._sum())
        result = self._past_sum(self.spec.sum_registers)
        if not enable:
            self._inputs.pop()
            self._sums.pop()
        return result

    def _past(self, name: str, age: int) -> int:
        return self._inputs[-1 - age][name] if age < len(self._inputs) else 0

    def _past_sum(self, age: int) -> int:
        return self._sums[-1 - age] if age < len(self._sums) else 0

    def _product(self) -> int:
        spec = self.spec
        age = spec.product_registers
        mode = self._past("inmode", age + spec.mode_registers)
        b_age = spec.b_registers - (1 if mode & 16 and spec.b_registers == 2 else 0)
        b = self._past("b", age + b_age)
        if spec.preadder:
            age += spec.preadd_registers
            mode = self._past("inmode", age + spec.mode_registers)
        a_age = spec.a_registers - (1 if mode & 1 and spec.a_registers == 2 else 0)
        a = 0 if mode & 2 else self._past("a", age + a_age)
        d = self._past("d", age + spec.d_registers) if spec.preadder and mode & 4 else 0
        factor = d - a if spec.preadder and mode & 8 else d + a
        return _signed(factor, 27) * b

    def _sum(self) -> int:
        spec = self.spec
        mode = self._past("opmode", spec.mode_registers)
        a, b = self._past("a", spec.a_registers), self._past("b", spec.b_registers)
        # The sum of this cycle is not among the past ones yet.
        c, p = self._past("c", spec.c_registers), self._past_sum(0)
        x = (0, self._product(), p, a * (1 << 18) + b % (1 << 18))[mode & 3]
        y = (0, 0, -1, c)[mode >> 2 & 3]
        z = (0, self._past("pcin", 0), p, c)[mode >> 4 & 3]
        w = (0, p, spec.rounding, c)[mode >> 7 & 3]
        return _signed(x + y + z + w, 48)


def packed_sum(
    a: npt.ArrayLike, d: npt.ArrayLike, b: npt.ArrayLike, start: int | npt.ArrayLike = 0
) -> npt.NDArray[np.int64]:
    """The 48-bit word start + sum of (a*b << 18) + d*b along the last axis, as a signed number."""
    a, d, b = (np.asarray(operand, np.int64) for operand in (a, d, b))
    word = np.asarray(start, np.int64) + ((a * b).sum(-1) * (1 << 18) + (d * b).sum(-1))
    return (word + _WORD // 2) % _WORD - _WORD // 2


def lanes(word: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The two sums of a packed word, low and high: the only pair with low in 18 bits that makes the word."""
    word = np.asarray(word, np.int64)
    low = np.mod(word + (1 << 17), 1 << 18) - (1 << 17)
    return low, np.floor_divide(word - low, 1 << 18)
