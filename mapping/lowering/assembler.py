"""Writing one unit's instruction stream: loops and branches by structure, operands by small values."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hw.spec.errors import InputError
from hw.spec.instructions import LOOP_DEPTH, Condition, Opcode, Register, Unit, encode


@dataclass(frozen=True)
class Count:
    """A count operand: min(cap, max(0, ((register + offset) >> shift) * scale - index[level] * step))."""

    cap: int
    offset: int
    register: Register = Register.ZERO
    shift: int = 0
    scale: int = 1
    level: int = 0
    step: int = 0

    def fields(self, name: str) -> dict[str, int]:
        """Instruction fields of the operand `name`."""
        return {
            f"{name}_cap": self.cap,
            f"{name}_register": int(self.register),
            f"{name}_offset": self.offset,
            f"{name}_shift": self.shift,
            f"{name}_scale": self.scale,
            f"{name}_level": self.level,
            f"{name}_step": self.step,
        }


def fixed(value: int) -> Count:
    """A count that nothing changes."""
    return Count(cap=value, offset=value)


def tiled(total: int, tile: int, level: int) -> Count:
    """Size of the tile that loop `level` stands at: `tile`, or what is left of `total`."""
    return Count(cap=tile, offset=total, level=level, step=tile)


def if_any(register: Register) -> Count:
    """One round if the register is not zero."""
    return Count(cap=1, offset=0, register=register)


@dataclass(frozen=True)
class Address:
    """A memory address operand, in words."""

    base: int
    strides: dict[int, int] = field(default_factory=dict)
    register: Register = Register.ZERO
    shift: int = 0
    factor: int = 0

    def fields(self) -> dict[str, int]:
        """Instruction fields."""
        values = {
            "address_base": self.base,
            "address_register": int(self.register),
            "address_shift": self.shift,
            "address_factor": self.factor,
        }
        return values | {f"address_stride{level}": stride for level, stride in self.strides.items()}


@dataclass(frozen=True)
class Place:
    """A buffer address operand: base plus strides of at most as many loop levels as the operand has terms."""

    base: int
    strides: dict[int, int] = field(default_factory=dict)

    def fields(self, name: str) -> dict[str, int]:
        """Instruction fields of the operand `name`."""
        values = {f"{name}_base": self.base}
        for i, (level, stride) in enumerate(self.strides.items()):
            values |= {f"{name}_level{i}": level, f"{name}_stride{i}": stride}
        return values

    def __add__(self, offset: int) -> "Place":
        return Place(self.base + offset, self.strides)


def units(*names: Unit) -> int:
    """Token mask of some units."""
    return sum(1 << unit for unit in names)


class Assembler:
    """Instruction stream of one unit.

    Parameters
    ----------
    unit : Unit
    """

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.depth = 0
        self._lines: list[tuple[Opcode, dict[str, int]]] = []
        self._exit = 0

    @property
    def here(self) -> int:
        """Address of the next instruction."""
        return len(self._lines)

    def emit(self, opcode: Opcode, wait: int = 0, signal: int = 0, **fields: int) -> int:
        """Append an instruction; its address."""
        self._lines.append((opcode, {"wait": wait, "signal": signal, **fields}))
        return self.here - 1

    def sync(self, wait: int = 0, signal: int = 0) -> None:
        """Tokens only."""
        self.emit(Opcode.SYNC, wait, signal)

    def sync_times(self, times: int, wait: int = 0, signal: int = 0) -> None:
        """Several tokens of each unit of the masks."""
        for _ in range(times):
            self.sync(wait, signal)

    def execute(self, wait: int = 0, signal: int = 0, **fields: int) -> None:
        """The unit's own operation."""
        self.emit(Opcode.EXECUTE, wait, signal, **fields)

    @contextmanager
    def loop(self, count: Count) -> Iterator[int]:
        """Repeat the body `count` times; yields the loop's level."""
        if self.depth == LOOP_DEPTH:
            raise ValueError(f"{self.unit.name}: loops nest deeper than {LOOP_DEPTH}")
        start = self.emit(Opcode.LOOP, **count.fields("count"))
        self.depth += 1
        yield self.depth - 1
        self.depth -= 1
        self.emit(Opcode.END_LOOP, target=start + 1)
        self._lines[start][1]["target"] = self.here

    @contextmanager
    def unless(self, condition: Condition) -> Iterator[None]:
        """Skip the body if `condition` holds."""
        start = self.emit(Opcode.BRANCH, condition=int(condition))
        yield
        self._lines[start][1]["target"] = self.here

    @contextmanager
    def token_loop(self) -> Iterator[None]:
        """One round a token, which is left by `leave_at_end`; then HALT."""
        with self.loop(fixed((1 << 20) - 1)):
            yield
            self.emit(Opcode.INCREMENT, **fixed(1).fields("count"))
        self._lines[self._exit][1]["target"] = self.here
        self.emit(Opcode.HALT)

    def leave_at_end(self) -> None:
        """Wait for SYS, unless this is it, and leave `token_loop` if it has set END."""
        if self.unit != Unit.SYS:
            self.sync(wait=units(Unit.SYS))
        self._exit = self.emit(Opcode.BRANCH, condition=int(Condition.END), close=1)

    def words(self, room: int) -> list[int]:
        """Encoded instructions.

        Raises
        ------
        InputError
            If they are more than `room`, or an operand does not fit its field.
        """
        if self.here > room:
            raise InputError(
                f"target: instructions: {self.unit.name} needs {self.here}, the target holds {room} ({self.here - room} too few)"
            )
        try:
            return [encode(self.unit, opcode, **fields) for opcode, fields in self._lines]
        except ValueError as error:
            raise InputError(f"program: {error}") from None
