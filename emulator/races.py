"""Race detection: every pair of conflicting accesses must be ordered by tokens.

Vector clocks: each unit knows, for every other unit, the last instruction that tokens order before its
own next one. A read is legal if the writer's last write of those rows is known so; a write, if the reader's last
read is.
"""

from collections import deque

import numpy as np

from emulator.accesses import BUFFERS, Range, depths
from emulator.errors import IllegalProgram
from emulator.lazy import zeros
from emulator.state import MachineState
from hw.spec.instructions import Unit
from hw.spec.machine import MachineSpec


class RaceDetector:
    """Follows tokens and accesses of one run.

    Raises
    ------
    IllegalProgram
        From `access` and `read_end`, naming both units, both instructions and the rows.
    """

    def __init__(self, spec: MachineSpec) -> None:
        self.clock = np.zeros((len(Unit), len(Unit)), np.int64)
        self.tokens: dict[tuple[int, int], deque[np.ndarray]] = {
            (a, b): deque() for a in Unit for b in Unit
        }
        self.depth = depths(spec)
        self.written = {name: zeros((depth,), np.int64) for name, depth in self.depth.items()}
        self.read = {name: zeros((depth,), np.int64) for name, depth in self.depth.items()}

        self._end_written = 0
        self._end_read = np.zeros(len(Unit), np.int64)

    def read_end(self, unit: Unit) -> None:
        """Check a branch on END, before the unit's next instruction."""
        if unit != Unit.SYS and self._end_written > self.clock[unit, Unit.SYS]:
            raise IllegalProgram(
                f"race on END: a branch of {unit.name} is not ordered by tokens behind instruction number "
                f"{self._end_written} of SYS, which sets it"
            )
        self._end_read[unit] = self.clock[unit, unit] + 1

    def _write_end(self, where: str) -> None:
        known = self.clock[Unit.SYS]
        for unit in Unit:
            if unit != Unit.SYS and self._end_read[unit] > known[unit]:
                raise IllegalProgram(
                    f"race on END: {where} is not ordered by tokens behind a branch of {unit.name} on it"
                )
        self._end_written = int(known[Unit.SYS])

    def take(self, giver: int, taker: int) -> None:
        """`taker` consumes a token of `giver`."""
        np.maximum(self.clock[taker], self.tokens[giver, taker].popleft(), out=self.clock[taker])

    def give(self, giver: int, taker: int) -> None:
        """`giver` sends a token at the end of its current instruction."""
        self.tokens[giver, taker].append(self.clock[giver].copy())

    def access(self, unit: Unit, where: str, reads: list[Range], writes: list[Range]) -> None:
        """Check and note the accesses of the unit's next instruction."""
        self.clock[unit, unit] += 1
        now = self.clock[unit, unit]
        if unit == Unit.SYS and writes:
            self._write_end(where)
        for name, first, count in reads:
            for part in self._parts(name, first, count):
                self._check(
                    unit, where, name, self.written[name][part], BUFFERS[name].writer, "wrote"
                )
                self.read[name][part] = now
        for name, first, count in writes:
            for part in self._parts(name, first, count):
                self._check(unit, where, name, self.read[name][part], BUFFERS[name].reader, "read")
                self.written[name][part] = now

    def check_rings(self, state: MachineState) -> None:
        """Check that neither ring holds more words than fit, or fewer than none."""
        spec = state.spec
        rings = (
            ("stream", state.stream_write, state.stream_read, spec.stream_words),
            ("scale", state.scale_write, state.scale_read, spec.scale_words),
        )
        for name, written, read, depth in rings:
            if not 0 <= written - read <= depth:
                raise IllegalProgram(
                    f"{name} ring: {written - read} words between LD and MPE, {depth} fit"
                )

    def _parts(self, name: str, first: int, count: int) -> list[slice]:
        depth = self.depth[name]
        if count > depth:
            raise IllegalProgram(f"{name}: {count} rows in a buffer of {depth}")
        first %= depth
        if first + count <= depth:
            return [slice(first, first + count)]
        return [slice(first, depth), slice(0, first + count - depth)]

    def _check(
        self, unit: Unit, where: str, name: str, stamps: np.ndarray, other: Unit, did: str
    ) -> None:
        latest = stamps.max(initial=0)
        if latest > self.clock[unit, other]:
            raise IllegalProgram(
                f"race on {name}: {where} is not ordered by tokens behind instruction number {latest} of "
                f"{other.name}, which {did} the same rows"
            )
