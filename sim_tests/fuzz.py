"""Random legal programs for any machine, from a seed; and illegal ones made from them.

Every unit, nested loops, run-time registers in counts and addresses, branches, tokens: see `fuzz_operands` for
the operands and `fuzz_schedule` for what makes a program legal.
"""

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from emulator.errors import IllegalInstruction, IllegalProgram
from hw.spec.instructions import (
    LOOP_DEPTH,
    Condition,
    Destination,
    Opcode,
    Reduce,
    Register,
    Source,
    Target,
    Unit,
    decode,
    instruction_bits,
)
from hw.spec.machine import MachineSpec
from hw.spec.program import Program
from sim_tests.exactness import Expectation, expect
from sim_tests.fuzz_case import FuzzCase, random_memory
from sim_tests.fuzz_emit import Emitter
from sim_tests.fuzz_fields import count_fields, exact_count
from sim_tests.fuzz_operands import NoLegalOperands, image
from sim_tests.fuzz_rings import RINGS, Body, Level, RingWriter, forget_positions
from sim_tests.fuzz_schedule import (
    Control,
    Node,
    Repeat,
    Scheduler,
    Step,
    Volley,
    steps_of,
)
from sim_tests.instruction_text import evaluate_count

MOST_CASES = 40
"""Rounds of all loops around an instruction together."""
MANY_ROUNDS = 120
"""At most, where there is no other loop."""
LONG_ROUNDS = 2
"""The same, for an instruction of many beats."""
OWN_KIND = {
    Unit.LD: "load",
    Unit.ST: "store",
    Unit.SFU: "vector",
    Unit.MPE: "sync",
    Unit.SYS: "sync",
}
"""What a unit can do by itself, without a ring's other end."""


@dataclass
class Corpus:
    """Legal programs with what the emulator says of them.

    Attributes
    ----------
    cases : list of (FuzzCase, Expectation)
    rejected : list of (seed, reason)
        Programs that were generated and that the emulator does not accept.
    """

    cases: list[tuple[FuzzCase, Expectation]] = field(default_factory=list)
    rejected: list[tuple[int, str]] = field(default_factory=list)


def corpus(spec: MachineSpec, count: int, seed: int) -> Corpus:
    """`count` legal programs; those that the emulator rejects are counted and left out."""
    result = Corpus()
    while len(result.cases) < count:
        case = generate(spec, seed)
        try:
            result.cases.append((case, expect(case.program, case.request)))
        except (IllegalProgram, IllegalInstruction) as error:
            result.rejected.append((seed, str(error)))
        seed += 1
    return result


def generate(spec: MachineSpec, seed: int) -> FuzzCase:
    """The program of a seed: meant to be legal, and nearly always so."""
    attempt = 0
    while True:
        writer = ProgramWriter(spec, random.Random(f"{seed}/{attempt}"))
        attempt += 1
        try:
            case = writer.case(seed)
        except NoLegalOperands:
            continue
        if all(len(words) <= spec.instructions for words in case.program.instructions.values()):
            return case


class ProgramWriter(RingWriter):
    """Writes one random program."""

    def case(self, seed: int) -> FuzzCase:
        """The whole program."""
        rng, spec = self.rng, self.spec
        level = Level(
            tuple(Unit), (), False, {"stream": spec.stream_words, "scale": spec.scale_words}
        )
        nodes = self._warm_up(level) if rng.random() < 0.7 else []
        if rng.random() < 0.7:
            nodes += self._body(level, rng.randint(2, 6), moving=["skip"])
            nodes.append(self._token_loop(level))
            nodes += self._body(level, rng.randint(1, 5), moving=["skip", "increment"])
        else:
            nodes += self._body(level, rng.randint(8, 20), moving=["skip", "increment"])
        chance = rng.choice([0.02, 0.1, 0.3])
        Scheduler(lambda: rng.random() < chance).schedule(nodes)
        machine = dataclasses.replace(spec, memory=random_memory(rng, spec))
        program = Program(machine, Emitter().program(nodes), image(rng, spec))
        return FuzzCase(seed, program, self.request)

    def _warm_up(self, level: Level) -> list[Node]:
        """Something else than zeros in every buffer, so that what is computed later shows faults."""
        rng, spec = self.rng, self.spec
        load = {
            "destination": int(Destination.INPUT),
            "address_base": rng.randrange(spec.memory.words // 8),
        }
        load |= exact_count(rng, "length", spec.input_words, self.environment(level, Unit.LD))
        address = {f"address_{part}": 0 for part in ("register", "shift", "factor")}
        address |= {f"address_stride{i}": 0 for i in range(LOOP_DEPTH)}
        nodes: list[Node] = [
            self.maker.toucher.step(Unit.LD, address | load, self.environment(level, Unit.LD))
        ]
        integers = {"b_source": int(Source.CONSTANT), "b_constant": 0x42000000}  # 32.0
        kinds = [
            (Target.VECTOR, 1, spec.vector_rows * spec.lanes, {}),
            (Target.ACTIVATION, 1, spec.activation_rows * spec.lanes, integers),
            (Target.STORE_INTEGER, 1, spec.store_rows * spec.matrix_rows, integers),
            (Target.SCALAR, spec.scalars, 1, {}),
            (Target.MATRIX_SCALE, spec.matrix_scales, 1, {}),
        ]
        inputs = spec.input_words * spec.word_rows * spec.lanes
        for target, rows, elements, more in kinds:
            length = min(elements, inputs)
            fields = {
                "a_source": int(Source.INPUT),
                "a_pitch": 1,
                "d_pitch": 1,
                "rows_cap": rows,
                "rows_offset": rows,
                "rows_scale": 1,
                "target": int(target),
            }
            environment = self.environment(level, Unit.SFU)
            fields |= exact_count(rng, "length", length, environment) | more
            nodes.append(self.maker.toucher.step(Unit.SFU, fields, environment))
        return nodes

    def _body(self, level: Level, budget: int, moving: Sequence[str] = ()) -> list[Node]:
        """A serial list of about `budget` things to do, the rings balanced at its end.

        `moving` are the things to do that change a unit's own registers: only where each is done once.
        """
        rng = self.rng
        threads: list[list[str]] = []
        if Unit.LD in level.units and Unit.MPE in level.units and rng.random() < 0.75:
            threads.append(["matrix"] * rng.randint(1, max(1, budget // 3)))
        kinds = ["inner", "inner", "nest", "volley", "sync", "section", "dead"]
        kinds += [*moving] * 2
        for unit, names in (
            (Unit.LD, ["load"]),
            (Unit.ST, ["store", "store"]),
            (Unit.SFU, ["vector", "vector", "vector", "argmax"]),
        ):
            kinds += names * (2 * (unit in level.units))
        if self.spec.cores > 1 and Unit.SFU in level.units:
            kinds += ["exchange"] * 3
        if Unit.SFU in level.units:
            kinds += ["long"] * 2
        if Unit.SYS in level.units and not level.in_token_loop:
            kinds.append("system")
        threads.append([rng.choice(kinds) for _ in range(budget)])
        nodes: list[Node] = []
        mark = dict(self.written)
        body = Body()
        while any(threads):
            thread = rng.choice([t for t in threads if t])
            self._add(thread.pop(0), level, nodes, body)
        self.drain_plan(level, nodes, body)
        if not body.regular:
            forget_positions(nodes)
        body.turnover = {name: self.written[name] - mark[name] for name in RINGS}
        self.last_body = body
        return nodes

    def _add(self, kind: str, level: Level, nodes: list[Node], body: Body) -> None:
        rng = self.rng
        unit = rng.choice(level.units)
        match kind:
            case "matrix":
                self.matrix(level, nodes, body)
            case "load":
                token = level.in_token_loop and rng.random() < 0.3
                nodes.append(self.maker.load_input(self.environment(level, Unit.LD), token))
            case "store":
                nodes.append(self.maker.store(self.environment(level, Unit.ST)))
            case "vector":
                nodes.append(self.maker.vector(self.environment(level, Unit.SFU), {}))
            case "argmax":
                only = {"reduce": int(Reduce.ARGMAX)}
                nodes.append(self.maker.vector(self.environment(level, Unit.SFU), only))
            case "exchange":
                reduce = rng.choice([Reduce.NONE, Reduce.NONE, Reduce.MAGNITUDE, Reduce.SUM])
                only = {"reduce": int(reduce), "exchange": 1}
                if reduce == Reduce.NONE:
                    only["target"] = int(rng.choice([Target.VECTOR, Target.ACTIVATION]))
                nodes.append(self.maker.vector(self.environment(level, Unit.SFU), only))
            case "long" if level.rounds() <= LONG_ROUNDS and not level.in_token_loop:
                nodes.append(self.maker.long_vector(self.environment(level, Unit.SFU)))
            case "system":
                nodes.append(
                    self.maker.toucher.step(Unit.SYS, {}, self.environment(level, Unit.SYS))
                )
            case "sync":
                nodes.append(Step(unit))
            case "increment":
                at = self.position[unit]
                self.position[unit] = None if at is None else at + 1
                nodes.append(Control(unit, "increment"))
            case "skip":
                nodes.append(self._skip(level, unit))
            case "volley":
                self._volley(level, nodes)
            case "dead":
                nodes.append(self._dead(level, unit))
            case "section":
                self._section(level, nodes, body)
            case "nest" if len(level.trips) < LOOP_DEPTH:
                self._nest(level, unit, nodes)
            case "inner" if len(level.trips) < LOOP_DEPTH:
                self._inner(level, nodes, body)

    def _volley(self, level: Level, nodes: list[Node]) -> None:
        rng = self.rng
        if len(level.units) < 2:
            return
        giver, taker = rng.sample(level.units, 2)
        # Fewer than overflow a counter, even if the giver runs through all rounds of the loops first.
        most = max(1, 200 // level.rounds())
        if len(level.trips) == LOOP_DEPTH:
            most = min(most, 3)
        nodes.append(Volley(giver, taker, min(most, rng.choice([1, 2, 5, 20, 200, 200]))))

    def _dead(self, level: Level, unit: Unit) -> Control:
        rng = self.rng
        # Not executed, so anything; but whoever looks through a program may refuse operands that cannot be.
        codes = sorted(set(range(16)) - {Opcode.LOOP, Opcode.EXECUTE})
        size = instruction_bits(unit) - 4
        garbage = [
            word
            for word in (
                rng.getrandbits(size) << 4 | rng.choice(codes) for _ in range(rng.randint(0, 2))
            )
            if not _counts_by_token(unit, word)
        ]
        if rng.random() < 0.5 and len(level.trips) < LOOP_DEPTH:
            count = exact_count(rng, "count", 0, self.environment(level, unit))
            return Control(unit, "omit", count, garbage)
        return Control(unit, "jump", {}, garbage)

    def _skip(self, level: Level, unit: Unit) -> Control:
        """Another SKIPPED: mostly a few tokens, at times none or any number."""
        rng, environment = self.rng, self.environment(level, unit)
        [(indices, registers)] = environment.cases()
        high = rng.choice([8, 40, (1 << 20) - 1])
        fields = count_fields(rng, "count", 0, high, environment)
        made = evaluate_count(fields, "count", indices, registers)
        fields["less"] = rng.choice([0, 0, 1, made, max(0, made - rng.randint(0, 8)), rng.getrandbits(20)])  # fmt: skip
        self.skipped[unit] = max(0, made - fields["less"])
        return Control(unit, "skip", fields)

    def _section(self, level: Level, nodes: list[Node], body: Body) -> None:
        """Steps that are skipped in prefill; all units that take part must see the same."""
        rng = self.rng
        units = _subset(rng, level.units)
        positions = {self.position[unit] for unit in units}
        if not level.in_token_loop and (len(positions) > 1 or None in positions):
            return
        inside = dataclasses.replace(level, units=units, room=self.room(level, body))
        before = (dict(self.written), dict(self.read))
        steps = self._body(inside, rng.randint(1, 3))
        if any(self.last_body.turnover.values()) or not self.last_body.regular:
            # Whether the rings moved depends on the branch.
            body.regular = False
        if not level.in_token_loop and positions.pop() < len(self.request.prompt):  # type: ignore[operator]  # None was excluded above
            self.written, self.read = before
        nodes.append(Repeat(units, steps, skip_if=Condition.PREFILL))

    def _inner(self, level: Level, nodes: list[Node], body: Body) -> None:
        rng = self.rng
        most = MOST_CASES // level.rounds()
        if most < 2:
            return
        units = _subset(rng, level.units)
        if rng.random() < 0.4:
            self._local(level, rng.choice(level.units), nodes)
            return
        trips = min(most, rng.randint(1, 3))
        counts = {u: exact_count(rng, "count", trips, self.environment(level, u)) for u in units}
        room = self.room(level, body)
        inside = Level(units, (*level.trips, trips), level.in_token_loop, room)
        waiting = any(body.loaded[name] > body.used[name] for name in RINGS)
        steps = self._body(inside, rng.randint(1, 4))
        turnover = self.last_body.turnover
        for name, words in turnover.items():
            self.written[name] += (trips - 1) * words
            self.read[name] += (trips - 1) * words
        if waiting:
            forget_positions(steps)
        if not self.last_body.regular:
            body.regular = False
        nodes.append(Repeat(units, steps, counts, turnover=turnover))

    def _local(self, level: Level, unit: Unit, nodes: list[Node], outer: int = 0) -> None:
        """A loop of one unit: any number of rounds, also none, or left by a branch."""
        rng = self.rng
        trips = min(MOST_CASES // level.rounds(), rng.choice([1, 2, 3]))
        if not level.trips and rng.random() < 0.15:
            trips = rng.randint(MOST_CASES, MANY_ROUNDS)
        counts = count_fields(rng, "count", 0, max(1, trips), self.environment(level, unit))
        inside = Level((unit,), (*level.trips, max(1, trips)), level.in_token_loop, {})
        steps: list[Node] = []
        state = Body()
        own = OWN_KIND[unit]
        for _ in range(rng.randint(1, 3) if trips <= MOST_CASES else 1):
            self._add(rng.choice([own, own, "sync", "dead"]), inside, steps, state)
        loop = Repeat((unit,), steps, {unit: counts})
        if rng.random() < 0.6 and len(inside.trips) < LOOP_DEPTH and trips <= MOST_CASES:
            self._local(inside, unit, steps, outer + 1)
        if rng.random() < (0.6 if outer else 0.4):
            loop.leave_at = rng.randint(0, len(steps))
            loop.leave_close = rng.choice([1, 1 + outer])
            loop.leave_if = rng.choice([Condition.ALWAYS, Condition.PREFILL, Condition.REST])
        for step in steps_of(steps):
            step.plain = True
        nodes.append(loop)

    def _nest(self, level: Level, unit: Unit, nodes: list[Node]) -> None:
        """Loops of one unit, down to the deepest."""
        trips = self.rng.choice([1, 2]) if 2 * level.rounds() <= MOST_CASES else 1
        count = exact_count(self.rng, "count", trips, self.environment(level, unit))
        inside = Level((unit,), (*level.trips, trips), level.in_token_loop, {})
        steps: list[Node] = []
        if len(inside.trips) < LOOP_DEPTH:
            self._nest(inside, unit, steps)
        else:
            self._add(OWN_KIND[unit], inside, steps, Body())
        nodes.append(Repeat((unit,), steps, {unit: count}))

    def _token_loop(self, level: Level) -> Repeat:
        """One round a token: SYS's EXECUTE, a SYNC of all others behind it, then anything."""
        rounds = self.request.steps
        inside = Level(level.units, (rounds,), True, level.room)
        execute = self.maker.toucher.step(Unit.SYS, {}, self.environment(inside, Unit.SYS))
        execute.plain = True
        nodes: list[Node] = [execute]
        nodes += [Step(unit, reads={"token": 1}, plain=True) for unit in Unit if unit != Unit.SYS]
        rest = self._body(inside, self.rng.randint(3, 9))
        if not self.last_body.regular:
            forget_positions(rest)
        turnover = self.last_body.turnover
        # What each unit does first behind its branch holds back the next token.
        rest = [*(Step(unit, reads={"token": 1}) for unit in Unit if unit != Unit.SYS), *rest]
        at = None if self.request.stop_tokens else rounds
        self.position = dict.fromkeys(Unit, at)
        return Repeat(level.units, [*nodes, *rest], token_loop=True, turnover=turnover)


def _subset(rng: random.Random, units: tuple[Unit, ...]) -> tuple[Unit, ...]:
    """Some of the units, LD and MPE together more often than not."""
    chosen = {unit for unit in units if rng.random() < 0.6}
    if not chosen or rng.random() < 0.3:
        chosen |= set(units) & {Unit.LD, Unit.MPE}
    if not chosen:
        chosen = {rng.choice(units)}
    return tuple(unit for unit in units if unit in chosen)


def _counts_by_token(unit: Unit, word: int) -> bool:
    """Whether an instruction word, if it is one at all, has a count that depends on TOKEN."""
    try:
        return decode(unit, word).get("count_register") == Register.TOKEN
    except ValueError:
        return False
