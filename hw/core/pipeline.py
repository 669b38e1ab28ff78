"""Delays of pipelines that move as a whole."""

from amaranth.hdl import Module, Shape, Signal, Value

__all__ = ["delays"]


def delays(m: Module, name: str, value: Value, cycles: int, enable: Value) -> list[Value]:
    """`value` behind 0, 1, ... `cycles` registers that move while `enable` is high.

    The registers have no reset, so that tools may build shift registers from lookup tables.
    """
    stages: list[Value] = [value]
    for age in range(1, cycles + 1):
        stage = Signal(Shape.cast(value.shape()), name=f"{name}_{age}", reset_less=True)
        with m.If(enable):
            m.d.sync += stage.eq(stages[-1])
        stages.append(stage)
    return stages
