"""What the format and sparsity of an instruction mean for the stages of the matrix engine."""

from collections.abc import Callable
from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import data

from hw.spec.machine import MachineSpec
from hw.spec.weight_format import KEPT, WIRES, StepFormat, WeightFormat

__all__ = ["MatrixMode", "advance", "is_wide", "select_by"]

UNIT_ELEMENTS = 4
"""Elements of a unit of activation addresses."""


def is_wide(weight: WeightFormat) -> bool:
    """Whether a weight takes both nibbles of a byte lane: four weights a step."""
    return weight.step_weights == UNIT_ELEMENTS


def advance(step: StepFormat) -> int:
    """Quarters of a word that the stream moves by behind the weights of a step."""
    return -(-step.weight_quarters // 4) * 4 if step.kept else step.weight_quarters


def select_by(m: Module, name: str, selector: Value, choices: dict[int, Value]) -> Value:
    """The choice whose number `selector` has (any of them if none has it); no hardware for a single one."""
    if len(choices) == 1:
        return next(iter(choices.values()))
    result = Signal(next(iter(choices.values())).shape(), name=name)
    *first, (_, last) = choices.items()
    with m.Switch(selector):
        for number, value in first:
            with m.Case(number):
                m.d.comb += result.eq(value)
        with m.Default():
            m.d.comb += result.eq(last)
    return result


@dataclass(frozen=True)
class MatrixMode:
    """Facts about a step format, as values; what is the same for all formats of a machine is constant.

    Attributes
    ----------
    legal : Value
        The machine has it.
    wired : Value
        The weights are those of a hardwired matrix: what is said of steps below does not count.
    format : Value
        The format of the weights; what no format of the machine needs is constant.
    wide : Value
        Four weights a step, not eight.
    sparse, bitmap : Value
        Steps begin with metadata; these are bitmaps.
    quarters : Value
        Quarters of a word that the weights of a step fill.
    weight_units, metadata_units : Value
        What the stream moves by behind weights and metadata, in units of the machine's `stream_alignment`.
    span_units : Value
        What the activations move by, in units of 4 elements.
    windows : Value
        Blocks of 16 elements that a sparse step chooses from: 1, 2 or 4.
    misaligned : Value
        Low bits of activation addresses that must be zero.
    """

    legal: Value
    wired: Value
    format: Value
    wide: Value
    sparse: Value
    bitmap: Value
    quarters: Value
    weight_units: Value
    metadata_units: Value
    span_units: Value
    windows: Value
    misaligned: Value

    @classmethod
    def decode(cls, m: Module, operation: data.View, spec: MachineSpec) -> "MatrixMode":
        """Facts about the format that the fields of an instruction name."""
        steps = spec.step_formats
        code = Cat(operation.format, operation.kept, operation.bitmap)
        codes = [step.weight | KEPT.index(step.kept) << 3 | step.bitmap << 5 for step in steps]
        legal = Signal(name="mode_legal")
        with m.Switch(code):
            with m.Case(*codes):
                m.d.comb += legal.eq(1)
            with m.Default():
                m.d.comb += legal.eq(0)

        def table(name: str, fact: Callable[[StepFormat], int]) -> Value:
            facts = [int(fact(step)) for step in steps]
            width = max(facts).bit_length()
            if len(set(facts)) == 1:
                return Const(facts[0], width)
            # A hardwired product has no steps of the stream, so none with metadata either.
            pairs = [(WIRES, 0)] if spec.wired_bits else []
            pairs += zip(codes, facts, strict=True)
            return select_by(
                m, f"mode_{name}", code, {number: Const(value, width) for number, value in pairs}
            )

        unit = spec.stream_alignment
        return cls(
            legal=legal,
            wired=code == WIRES if spec.wired_bits else Const(0, 1),
            format=table("format", lambda step: step.weight),
            wide=table("wide", lambda step: is_wide(step.weight)),
            sparse=table("sparse", lambda step: step.kept > 0),
            bitmap=table("bitmap", lambda step: step.bitmap),
            quarters=table("quarters", lambda step: step.weight_quarters),
            weight_units=table("weight_units", lambda step: advance(step) // unit),
            metadata_units=table("metadata_units", lambda step: 4 * step.metadata_words // unit),
            span_units=table("span_units", lambda step: step.span // UNIT_ELEMENTS),
            windows=table("windows", lambda step: max(step.span // 16, 1) if step.kept else 1),
            misaligned=table("misaligned", lambda step: step.alignment // UNIT_ELEMENTS - 1),
        )

    def registered(self, m: Module, load: Value) -> "MatrixMode":
        """The facts of the instruction for which `load` was high last."""

        def keep(name: str, value: Value) -> Value:
            if isinstance(value, Const):
                return value
            register = Signal(value.shape(), name=f"{name}_now", reset_less=True)
            with m.If(load):
                m.d.sync += register.eq(value)
            return register

        return MatrixMode(**{name: keep(name, value) for name, value in vars(self).items()})
