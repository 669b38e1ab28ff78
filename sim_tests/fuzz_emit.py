"""From a scheduled tree of steps and loops to the instruction words of every unit."""

from dataclasses import dataclass, field

from hw.spec.instructions import LOOP_DEPTH, Condition, Opcode, Register, Unit, encode
from sim_tests.fuzz_schedule import Control, Node, Repeat, Step, Volley

TOKEN_ROUNDS = (1 << 20) - 1


@dataclass
class _Line:
    opcode: Opcode
    fields: dict[str, int]
    word: int | None = None
    """A word to be taken as it is."""


@dataclass
class Emitter:
    """Writes nodes; `words` is what came of it."""

    lines: dict[Unit, list[_Line]] = field(default_factory=lambda: {unit: [] for unit in Unit})
    leaves: dict[Unit, list[list[_Line]]] = field(
        default_factory=lambda: {unit: [] for unit in Unit}
    )
    """Branches out of each open loop, innermost last, that want its end as target."""

    def program(self, nodes: list[Node]) -> dict[Unit, list[int]]:
        """Instruction words of a whole program."""
        self._nodes(nodes)
        for unit in Unit:
            self._line(unit, Opcode.HALT)
        return {unit: [self._word(unit, line) for line in self.lines[unit]] for unit in Unit}

    def _word(self, unit: Unit, line: _Line) -> int:
        return encode(unit, line.opcode, **line.fields) if line.word is None else line.word

    def _line(self, unit: Unit, opcode: Opcode, **fields: int) -> _Line:
        if opcode not in (Opcode.SYNC, Opcode.EXECUTE):
            # Masks count in unit instructions only: here they may be anything.
            place = self._here(unit)
            fields |= {"wait": 5 * place % 32, "signal": 11 * place % 32}
        line = _Line(opcode, fields)
        self.lines[unit].append(line)
        return line

    def _here(self, unit: Unit) -> int:
        return len(self.lines[unit])

    def _nodes(self, nodes: list[Node]) -> None:
        for node in nodes:
            match node:
                case Step():
                    self._step(node)
                case Control():
                    self._control(node)
                case Repeat():
                    self._repeat(node)
                case Volley():
                    self._tokens(node.giver, node.count, 4, signal=1 << node.taker)
                    self._tokens(node.taker, node.count, 1, wait=1 << node.giver)

    def _step(self, step: Step) -> None:
        if step.wait or step.signal or not step.optional:
            self._line(step.unit, step.opcode, **step.fields, wait=step.wait, signal=step.signal)

    def _tokens(self, unit: Unit, count: int, at_once: int, **masks: int) -> None:
        """The same SYNC many times, `at_once` in each round of a loop; what is left over behind it."""
        rounds = count // at_once
        if len(self.leaves[unit]) == LOOP_DEPTH or rounds < 3:
            rounds = 0
        if rounds:
            loop = self._line(unit, Opcode.LOOP, **_fixed(rounds))
            for _ in range(at_once):
                self._line(unit, Opcode.SYNC, **masks)
            # Whoever sends four a round is faster than who takes one and then jumps, so tokens pile up.
            if at_once == 1:
                self._line(unit, Opcode.BRANCH, target=self._here(unit) + 1)
            self._line(unit, Opcode.END_LOOP, target=self._here(unit) - max(at_once, 2))
            loop.fields["target"] = self._here(unit)
        for _ in range(count - rounds * at_once):
            self._line(unit, Opcode.SYNC, **masks)

    def _control(self, node: Control) -> None:
        unit = node.unit
        if node.kind == "increment":
            self._line(unit, Opcode.INCREMENT, count_cap=1, count_offset=1, count_scale=1)
            return
        if node.kind == "skip":
            self._line(unit, Opcode.SKIP, **node.fields)
            return
        if node.kind == "omit":
            line = self._line(unit, Opcode.LOOP, **node.fields)
        else:
            line = self._line(unit, Opcode.BRANCH, condition=int(Condition.ALWAYS))
        for word in node.garbage:
            self._line(unit, Opcode.HALT).word = word
        line.fields["target"] = self._here(unit)

    def _repeat(self, node: Repeat) -> None:
        starts: dict[Unit, _Line] = {}
        bodies: dict[Unit, int] = {}
        for unit in node.units:
            self._with_tokens(unit, node.entry[unit], node.credits.get(unit, []), "signal")
            if node.skip_if is not None:
                starts[unit] = self._line(unit, Opcode.BRANCH, condition=int(node.skip_if))
            else:
                count = _fixed(TOKEN_ROUNDS) if node.token_loop else node.counts[unit]
                starts[unit] = self._line(unit, Opcode.LOOP, **count)
                self.leaves[unit].append([])
            bodies[unit] = self._here(unit)
        head = len(node.units) if node.token_loop else 0
        self._nodes(node.body[:head])
        for unit in node.units[: len(node.units) * node.token_loop]:
            self._leave(unit, 1, Condition.END)
        if node.leave_at is None:
            self._nodes(node.body[head:])
        else:
            self._nodes(node.body[: node.leave_at])
            self._leave(node.units[0], node.leave_close, node.leave_if)
            self._nodes(node.body[node.leave_at :])
        for unit in node.units:
            if node.skip_if is None:
                if node.token_loop:
                    self._line(unit, Opcode.INCREMENT, count_cap=1, count_offset=1, count_scale=1)
                self._line(unit, Opcode.END_LOOP, target=bodies[unit])
                for line in self.leaves[unit].pop():
                    line.fields["target"] = self._here(unit)
            starts[unit].fields["target"] = self._here(unit)
            self._with_tokens(unit, node.exit[unit], node.drains.get(unit, []), "wait")

    def _leave(self, unit: Unit, close: int, condition: Condition) -> None:
        line = self._line(unit, Opcode.BRANCH, condition=int(condition), close=close)
        self.leaves[unit][-close].append(line)

    def _with_tokens(self, unit: Unit, step: Step, masks: list[int], kind: str) -> None:
        """An entry that sends tokens, or an exit that takes them; more SYNCs for further ones of a pair."""
        further = list(masks)
        if further:
            mask = further.pop(0)
            if kind == "wait":
                step.wait = mask
            else:
                step.signal = mask
        if kind == "signal":
            self._step(step)
        for mask in further:
            self._line(unit, Opcode.SYNC, **{kind: mask})
        if kind == "wait":
            self._step(step)


def _fixed(count: int) -> dict[str, int]:
    return {
        "count_cap": count,
        "count_register": int(Register.ZERO),
        "count_offset": count,
        "count_scale": 1,
    }
