"""Registers at the edges of a systolic array."""

from collections.abc import Sequence

from amaranth.hdl import Module, Signal, Value

from hw.floating_values import delay

__all__ = ["delay_control", "delay_enabled", "is_number", "skew"]


def skew(m: Module, name: str, lanes: Sequence[Value]) -> list[Value]:
    """Lane ``i`` ``i`` cycles later, in registers without reset."""
    return [delay(m, f"{name}_{i}", lane, i) for i, lane in enumerate(lanes)]


def delay_control(m: Module, name: str, value: Value, cycles: int) -> Value:
    """The value some cycles later, in registers that reset to 0."""
    for cycle in range(1, cycles + 1):
        register = Signal(len(value), name=f"{name}_{cycle}")
        m.d.sync += register.eq(value)
        value = register
    return value


def delay_enabled(m: Module, name: str, value: Value, steps: int, enable: Value) -> Value:
    """The value of so many cycles with `enable` ago, in registers without reset."""
    for step in range(1, steps + 1):
        register = Signal(len(value), name=f"{name}_{step}", reset_less=True)
        with m.If(enable):
            m.d.sync += register.eq(value)
        value = register
    return value


def is_number(value: Value, number: int) -> Value:
    """Whether a value is a constant number; simulators warn of a comparison with 0 that becomes a logical not."""
    return value == number if number else ~value.any()
