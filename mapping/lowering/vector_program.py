"""SFU instructions by operand: u = function(A * B + C), its target and its reduction."""

import struct
from dataclasses import dataclass

from hw.spec.functions import Function
from hw.spec.instructions import Reduce, Source, Target
from mapping.lowering.assembler import Assembler, Count, Place, fixed


@dataclass(frozen=True)
class Operand:
    """An operand: where from, first row or entry, pitch from row to row; or a constant."""

    source: Source
    place: Place
    pitch: int = 0
    value: float = 0.0


def constant(value: float) -> Operand:
    """An FP32 constant in the instruction."""
    return Operand(Source.CONSTANT, Place(0), 0, value)


_NOTHING = Operand(Source.NONE, Place(0))


def _bits(value: float) -> int:
    return int.from_bytes(struct.pack("<f", value), "little")


class VectorProgram:
    """Writes vector instructions to an assembler."""

    def __init__(self, a: Assembler) -> None:
        self.a = a

    def apply(
        self,
        length: Count,
        a: Operand,
        b: Operand | None = None,
        c: Operand | None = None,
        *,
        rows: int | Count = 1,
        function: Function = Function.IDENTITY,
        target: Target = Target.NONE,
        d: Place | None = None,
        d_pitch: int = 0,
        reduce: Reduce = Reduce.NONE,
        entry: int = 0,
        restart: int = 0,
        causal: int = 0,
        exchange: int | None = None,
        wait: int = 0,
        signal: int = 0,
    ) -> None:
        """Append function(a * b + c) over `rows` rows of `length` elements.

        `exchange` is the pitch, in rows, at which the parts of all cores are written in every core; with a reduction, which
        is over all cores then, it does not matter.
        """
        fields: dict[str, int] = {}
        for name, operand in (("a", a), ("b", b or _NOTHING), ("c", c or _NOTHING)):
            fields[f"{name}_source"] = int(operand.source)
            fields[f"{name}_pitch"] = operand.pitch
            fields |= operand.place.fields(name)
            if operand.source == Source.CONSTANT:
                fields[f"{name}_constant"] = _bits(operand.value)
        self.a.execute(
            wait,
            signal,
            function=function.value,
            reduce=int(reduce),
            target=int(target),
            d_pitch=d_pitch,
            reduce_entry=entry,
            restart=restart,
            causal=causal,
            exchange=int(exchange is not None),
            exchange_pitch=exchange or 0,
            **length.fields("length"),
            **(fixed(rows) if isinstance(rows, int) else rows).fields("rows"),
            **(d or Place(0)).fields("d"),
            **fields,
        )

    def magnitude(
        self,
        length: Count,
        a: Operand,
        *,
        rows: int | Count,
        to: int,
        exchange: int | None = None,
        wait: int = 0,
    ) -> None:
        """Append the largest magnitude of each row, to scalar entries from `to` on."""
        self.apply(
            length, a, rows=rows, reduce=Reduce.MAGNITUDE, entry=to, exchange=exchange, wait=wait
        )

    def scalar(
        self,
        a: Operand,
        b: Operand | None = None,
        c: Operand | None = None,
        *,
        to: int,
        function: Function = Function.IDENTITY,
        rows: int | Count = 1,
    ) -> None:
        """Append an operation on scalars: `rows` entries from `to` on."""
        self.apply(
            fixed(1),
            a,
            b,
            c,
            rows=rows,
            function=function,
            target=Target.SCALAR,
            d=Place(to),
            d_pitch=1,
        )
