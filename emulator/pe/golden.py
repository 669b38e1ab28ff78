"""Golden twins of all processing elements: exact products, then sums as the accumulator keeps them."""

import numpy as np
import numpy.typing as npt

from emulator.pe.operands import Codes, Values, decode, signed_value
from hw.spec.processing_element import ProcessingElementSpec

__all__ = ["products", "sums"]


def products(
    spec: ProcessingElementSpec,
    weight: npt.ArrayLike,
    activation: npt.ArrayLike,
    control: npt.ArrayLike = 0,
) -> Values:
    """What each cycle adds to the sum.

    Parameters
    ----------
    spec : ProcessingElementSpec
        The element.
    weight, activation, control : array_like of int
        Bit patterns at the ports; they broadcast.

    Returns
    -------
    ndarray of int64
        Exact products.
    """
    return decode(spec.weight, weight) * decode(spec.activation, activation)


def sums(
    spec: ProcessingElementSpec,
    weight: npt.ArrayLike,
    activation: npt.ArrayLike,
    valid: npt.ArrayLike,
    clear: npt.ArrayLike,
    control: npt.ArrayLike = 0,
) -> Codes:
    """The sum register after each operand set, time along the first axis.

    The entry of cycle ``t`` is what the element shows in cycle ``t + spec.latency``. The first operand
    set must be valid and clear, since the sum is unknown before.

    Parameters
    ----------
    weight, activation, control : array_like of int
        Bit patterns at the ports in each cycle.
    valid, clear : array_like of bool
        As the ports of these names.

    Returns
    -------
    ndarray of int64
        Signed sums; of an element with FP32 accumulator its bits, as unsigned integers.
    """
    addends = np.atleast_1d(products(spec, weight, activation, control))
    valid = np.broadcast_to(np.asarray(valid, bool), addends.shape)
    clear = np.broadcast_to(np.asarray(clear, bool), addends.shape)
    total = np.zeros(addends.shape[1:], np.int64)
    history = np.empty(addends.shape, np.int64)
    for cycle in range(len(addends)):
        upto = signed_value(
            np.where(clear[cycle], 0, total) + addends[cycle], spec.accumulator_bits
        )
        history[cycle] = total = np.where(valid[cycle], upto, total)
    return history
