"""Token edges for a serial schedule of unit instructions, loops included: what makes a random program legal.

A program is written as one serial order of steps over all units. Two steps of different units that touch the
same rows, one of them writing, must stay in that order, so the earlier one sends a token that the later one
awaits, unless other tokens order them already. Because tokens are counted and not named, every edge of a
pair of units must leave and arrive in the same order; edges are only added where the taker does not know the
giver's step yet, and that makes them so.

A loop is swept twice. Edges that the second round needs from the first are answered in the very first
round by tokens sent before the loop, and what the last round sends is taken behind it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hw.spec.instructions import Condition, Opcode, Unit

Masks = dict[str, int]
"""Buffer name -> one bit for each row."""


@dataclass(frozen=True)
class RingUse:
    """Words of a ring that a step writes or reads, counted from the start of the program.

    `start` is None where the position differs from round to round in ways that are not followed.
    """

    start: int | None
    length: int
    write: bool
    depth: int

    def meets(self, earlier: "RingUse", shift: int) -> bool:
        """Whether this use must stay behind an earlier one of the other unit, `shift` words further back."""
        if self.write == earlier.write:
            return False
        if self.start is None or earlier.start is None:
            return True
        begin = earlier.start - shift
        if self.write:
            return self.start + self.length > begin + self.depth
        return begin < self.start + self.length and self.start < begin + earlier.length


@dataclass(eq=False)
class Step:
    """One unit instruction.

    Attributes
    ----------
    unit, opcode, fields
        What is encoded; tokens are added to it.
    reads, writes : Masks
        Over all rounds of all loops.
    rings : dict of str to RingUse
    everything : bool
        Ordered behind and before all steps of other units.
    wait, signal : int
        Token masks.
    optional : bool
        Left out when it carries no token.
    plain : bool
        Takes and sends no token that nothing needs.
    """

    unit: Unit
    opcode: Opcode = Opcode.SYNC
    fields: dict[str, int] = field(default_factory=dict)
    reads: Masks = field(default_factory=dict)
    writes: Masks = field(default_factory=dict)
    rings: dict[str, RingUse] = field(default_factory=dict)
    everything: bool = False
    wait: int = 0
    signal: int = 0
    optional: bool = False
    plain: bool = False
    sources: list["Step"] = field(default_factory=list)
    latest: int = 0

    def follows(self, earlier: "Step", shift: dict[str, int]) -> bool:
        """Whether this step must be ordered behind an earlier one of another unit."""
        if self.everything or earlier.everything:
            return True
        for name, mask in self.writes.items():
            if mask & (earlier.reads.get(name, 0) | earlier.writes.get(name, 0)):
                return True
        if any(mask & earlier.writes.get(name, 0) for name, mask in self.reads.items()):
            return True
        return any(
            name in earlier.rings and use.meets(earlier.rings[name], shift.get(name, 0))
            for name, use in self.rings.items()
        )


@dataclass(eq=False)
class Control:
    """Control instructions of one unit, in a row: relative targets are filled in when they are written."""

    unit: Unit
    kind: str
    """`increment`, `skip` (SKIPPED), `jump` (over `garbage`), or `omit` (a loop of no rounds over `garbage`)."""
    fields: dict[str, int] = field(default_factory=dict)
    garbage: list[int] = field(default_factory=list)
    """Instruction words that are never executed."""


@dataclass(eq=False)
class Repeat:
    """A loop, or a section that a branch may skip, of one or several units.

    Attributes
    ----------
    units : tuple of Unit
    body : list of nodes
    counts : dict of Unit to fields
        Count operand of each unit's LOOP; empty for a section that a branch may skip.
    skip_if : Condition or None
        Of a section: the condition under which it is skipped.
    token_loop : bool
        One round a token step; the head of its body is SYS's EXECUTE and a SYNC of every other unit.
    leave_at, leave_close, leave_if
        Of a loop of one unit: position in the body of a branch out of `leave_close` loops, or None.
    turnover : dict of str to int
        Words that a round moves through each ring.
    """

    units: tuple[Unit, ...]
    body: list["Node"]
    counts: dict[Unit, dict[str, int]] = field(default_factory=dict)
    skip_if: Condition | None = None
    token_loop: bool = False
    leave_at: int | None = None
    leave_close: int = 1
    leave_if: Condition = Condition.ALWAYS
    turnover: dict[str, int] = field(default_factory=dict)
    entry: dict[Unit, Step] = field(default_factory=dict)
    exit: dict[Unit, Step] = field(default_factory=dict)
    credits: dict[Unit, list[int]] = field(default_factory=dict)
    drains: dict[Unit, list[int]] = field(default_factory=dict)
    pairs: set[tuple[Unit, Unit]] = field(default_factory=set)


@dataclass(eq=False)
class Volley:
    """`count` tokens in a row from one unit to another, which takes them in a loop of its own."""

    giver: Unit
    taker: Unit
    count: int


Node = Step | Control | Repeat | Volley


def steps_of(nodes: list[Node]) -> Iterator[Step]:
    """All steps, those of loops once."""
    for node in nodes:
        if isinstance(node, Step):
            yield node
        elif isinstance(node, Repeat):
            yield from steps_of(node.body)


def union_step(unit: Unit, body: list[Node], everything: bool) -> Step:
    """A SYNC that stands for all that a unit does in a body."""
    result = Step(unit, everything=everything, optional=True)
    for step in steps_of(body):
        if step.unit == unit:
            for ours, theirs in ((result.reads, step.reads), (result.writes, step.writes)):
                for name, mask in theirs.items():
                    ours[name] = ours.get(name, 0) | mask
            for name, use in step.rings.items():
                result.rings[name] = RingUse(None, 0, use.write, use.depth)
    return result


@dataclass
class _Occurrence:
    number: int
    step: Step
    moved: dict[str, int]
    """Words by which the round has moved each ring."""


class Scheduler:
    """Adds tokens to a serial schedule.

    Parameters
    ----------
    extra : callable
        Called for a step and a possible giver; True adds a token that nothing needs.
    """

    def __init__(self, extra: Callable[[], bool]) -> None:
        self.extra = extra
        self.clock: dict[Unit, dict[Unit, int]] = {a: dict.fromkeys(Unit, 0) for a in Unit}
        self.known_at: dict[tuple[Unit, int], dict[Unit, int]] = {}
        self.numbers = dict.fromkeys(Unit, 0)

    def schedule(self, nodes: list[Node]) -> None:
        """Add the tokens of a whole program."""
        self._sweep(nodes, {unit: [] for unit in Unit}, {}, Repeat((), nodes), derive=True)

    def _sweep(
        self,
        nodes: list[Node],
        history: dict[Unit, list[_Occurrence]],
        moved: dict[str, int],
        level: Repeat,
        derive: bool,
    ) -> None:
        for node in nodes:
            if isinstance(node, Step):
                self._take(node, history, moved, level, derive)
                self._note(node, history, moved)
            elif isinstance(node, Repeat):
                self._repeat(node, history, moved, level, derive)
            elif isinstance(node, Volley):
                self._volley(node, level)

    def _take(
        self,
        step: Step,
        history: dict[Unit, list[_Occurrence]],
        moved: dict[str, int],
        level: Repeat,
        derive: bool,
    ) -> None:
        """Tokens that a step awaits: those it has already, those that it needs, and one by chance."""
        unit = step.unit
        for source in step.sources:
            self._learn(unit, source.unit, source.latest)
        for giver in Unit:
            if giver == unit:
                continue
            needed = self._latest(step, giver, history[giver], moved)
            if needed is None:
                continue
            self._edge(needed, step, level)
        if derive and not (step.optional or step.plain):
            for giver in Unit:
                done = history[giver]
                if step.wait >> giver & 1 or not done or not self.extra():
                    continue
                source = done[-1].step
                # A unit may send tokens to itself too, though it knows what it did.
                unknown = giver == unit or source.latest > self.clock[unit][giver]
                if unknown and not source.plain and not source.signal >> unit & 1:
                    self._edge(source, step, level)

    def _latest(
        self, step: Step, giver: Unit, done: list[_Occurrence], moved: dict[str, int]
    ) -> Step | None:
        for occurrence in reversed(done):
            if occurrence.number <= self.clock[step.unit][giver]:
                return None
            shift = {name: words - occurrence.moved.get(name, 0) for name, words in moved.items()}
            if step.follows(occurrence.step, shift):
                return occurrence.step
        return None

    def _edge(self, source: Step, step: Step, level: Repeat) -> None:
        giver, taker = source.unit, step.unit
        if source.signal >> taker & 1 or step.wait >> giver & 1:
            raise AssertionError(f"two tokens from {giver.name} to {taker.name} on one instruction")
        source.signal |= 1 << taker
        step.wait |= 1 << giver
        step.sources.append(source)
        level.pairs.add((giver, taker))
        self._learn(taker, giver, source.latest)

    def _learn(self, taker: Unit, giver: Unit, number: int) -> None:
        ours = self.clock[taker]
        for unit, value in self.known_at[giver, number].items():
            ours[unit] = max(ours[unit], value)

    def _note(
        self, step: Step, history: dict[Unit, list[_Occurrence]], moved: dict[str, int]
    ) -> None:
        unit = step.unit
        self.numbers[unit] += 1
        step.latest = self.numbers[unit]
        self.clock[unit][unit] = step.latest
        self.known_at[unit, step.latest] = dict(self.clock[unit])
        history[unit].append(_Occurrence(step.latest, step, dict(moved)))

    def _volley(self, node: Volley, level: Repeat) -> None:
        giver, taker = node.giver, node.taker
        self.numbers[giver] += 1
        self.clock[giver][giver] = self.numbers[giver]
        self.known_at[giver, self.numbers[giver]] = dict(self.clock[giver])
        self._learn(taker, giver, self.numbers[giver])
        level.pairs.add((giver, taker))

    def _repeat(
        self,
        node: Repeat,
        history: dict[Unit, list[_Occurrence]],
        moved: dict[str, int],
        level: Repeat,
        derive: bool,
    ) -> None:
        everything = node.skip_if is not None
        if not node.entry:
            node.entry = {unit: union_step(unit, node.body, everything) for unit in node.units}
            node.exit = {unit: union_step(unit, node.body, everything) for unit in node.units}
        for step in node.entry.values():
            self._take(step, history, moved, level, derive)
            # Nobody waits for an entry, but it is a moment that others may learn of.
            self._note(step, {step.unit: []}, moved)
        at_start = {unit: dict(known) for unit, known in self.clock.items()}

        inner: dict[Unit, list[_Occurrence]] = {unit: [] for unit in Unit}
        self._sweep(node.body, inner, dict(moved), node, derive)
        if not everything:
            further = {name: moved.get(name, 0) + words for name, words in node.turnover.items()}
            self._sweep(node.body, inner, {**moved, **further}, node, derive=False)
            if derive:
                self._join_rounds(node)

        # Behind the loop its units know of each other what they knew at its start: the least it can be.
        self.clock = {unit: dict(known) for unit, known in at_start.items()}
        if not everything:
            for giver, taker in node.pairs:
                for unit, value in at_start[giver].items():
                    self.clock[taker][unit] = max(self.clock[taker][unit], value)
            level.pairs |= node.pairs
        for step in node.exit.values():
            self._note(step, history, moved)

    def _join_rounds(self, node: Repeat) -> None:
        """Tokens before and behind the loop for the edges from one round to the next."""
        order = [item for item in node.body]
        place: dict[Step, int] = {}
        for position, item in enumerate(order):
            if isinstance(item, Step):
                place[item] = 3 * position
            elif isinstance(item, Repeat):
                place |= {step: 3 * position - 1 for step in item.entry.values()}
                place |= {step: 3 * position + 1 for step in item.exit.values()}
        head = len(node.units) if node.token_loop else 0
        for step, position in sorted(place.items(), key=lambda pair: pair[1]):
            for source in step.sources:
                if place[source] < position:
                    continue
                _put(node.credits, source.unit, step.unit)
                if position >= 3 * head - 1:
                    _put(node.drains, step.unit, source.unit)


def _put(masks: dict[Unit, list[int]], unit: Unit, other: Unit) -> None:
    """Add one token to the first SYNC of a list that does not carry one of that unit yet."""
    lines = masks.setdefault(unit, [])
    for i, mask in enumerate(lines):
        if not mask >> other & 1:
            lines[i] |= 1 << other
            return
    lines.append(1 << other)
