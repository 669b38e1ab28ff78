"""Delays of pipelines."""

from amaranth.hdl import Const, Module, Shape, Signal, Value

__all__ = ["delays"]


def delays(
    m: Module, name: str, value: Value, cycles: int, enable: Value | None = None
) -> list[Value]:
    """`value` behind 0, 1, ... `cycles` registers, which move while `enable` is high, or always.

    The registers have no reset, so that tools may build shift registers from lookup tables.
    """
    stages: list[Value] = [value]
    for age in range(1, cycles + 1):
        stage = Signal(Shape.cast(value.shape()), name=f"{name}_{age}", reset_less=True)
        with m.If(Const(1) if enable is None else enable):
            m.d.sync += stage.eq(stages[-1])
        stages.append(stage)
    return stages
