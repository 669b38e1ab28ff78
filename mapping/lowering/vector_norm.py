"""LayerNorm on the vector unit, quantized for the matrix engine."""

from hw.spec.functions import Function
from hw.spec.instructions import Reduce, Target, Unit
from mapping.graph.ir import Node
from mapping.lowering.assembler import units
from mapping.lowering.vector_program import constant
from mapping.lowering.vector_regions import VectorRegions


def layer_norm(v: VectorRegions, node: Node) -> None:
    """(x - mean) / sqrt(variance + epsilon) * gain + bias; `amax` holds the largest magnitude of x.

    x is first divided by it, so that both sums are fixed-point sums of small numbers; the variance is the mean square of
    what is left when the mean is taken off, because the difference of two large means would lose it.
    """
    p, config, rows = v.program, v.plan.config, v.phase.rows
    amax, t, x = v.scalar("amax"), v.vector("t"), v.vector("x")
    gain, bias = (node.local(name) for name in node.inputs[1:])
    count = constant(1.0 / config.hidden_size)
    into = {"rows": rows, "target": Target.VECTOR, "d": t.place, "d_pitch": t.pitch}

    p.scalar(amax, function=Function.RECIPROCAL, to=v.entry("a"), rows=rows)
    p.apply(
        v.hidden,
        x,
        v.scalar("a"),
        reduce=Reduce.SUM,
        entry=v.entry("b"),
        exchange=v.all_cores,
        **into,
    )
    p.scalar(v.scalar("b"), constant(-1.0 / config.hidden_size), to=v.entry("a"), rows=rows)
    p.apply(v.hidden, t, None, v.scalar("a"), **into)
    p.apply(v.hidden, t, t, rows=rows, reduce=Reduce.SUM, entry=v.entry("b"), exchange=v.all_cores)
    padding = v.plan.cores * v.plan.hidden_outputs - config.hidden_size
    if padding:
        # Zeros behind the vector, in the last core's part, became the mean too.
        p.scalar(v.scalar("a"), v.scalar("a"), to=v.entry("a"), rows=rows)
        p.scalar(v.scalar("a"), constant(-padding), v.scalar("b"), to=v.entry("b"), rows=rows)
    p.scalar(amax, amax, to=v.entry("c"), rows=rows)
    p.scalar(v.scalar("b"), v.scalar("c"), to=v.entry("d"), rows=rows)
    p.scalar(v.scalar("d"), count, constant(config.rms_norm_eps),
             function=Function.RECIPROCAL_SQUARE_ROOT, to=v.entry("b"), rows=rows)  # fmt: skip
    p.scalar(v.scalar("b"), amax, to=v.entry("c"), rows=rows)
    p.apply(v.hidden, t, v.parameter(gain), wait=v.waits(gain), **into)
    p.apply(v.hidden, t, v.scalar("c"), v.parameter(bias), reduce=Reduce.MAGNITUDE, entry=v.entry("a"),
            signal=v.signals(bias), exchange=v.all_cores, **into)  # fmt: skip
    v.quantize(t, v.hidden, "norm", signal=units(Unit.MPE), known=True)
