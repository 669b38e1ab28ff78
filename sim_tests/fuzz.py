"""Random legal programs for any machine, from a seed; and illegal ones made from them.

Every unit, nested loops, run-time registers in counts and addresses, branches, tokens: see `fuzz_operands` for
the operands and `fuzz_schedule` for what makes a program legal.
"""

import dataclasses
import random
from dataclasses import dataclass, field
from typing import Any

from emulator.errors import IllegalInstruction, IllegalProgram
from emulator.units.matrix_check import step_format
from hw.spec.errors import InputError
from hw.spec.instructions import (
    LOOP_DEPTH,
    Condition,
    Destination,
    Opcode,
    Reduce,
    Source,
    Target,
    Unit,
    instruction_bits,
)
from hw.spec.machine import MachineSpec, MemorySpec, check_machine, load_machine
from hw.spec.program import Program
from hw.spec.weight_format import StepFormat, WeightFormat
from sim_tests.exactness import Expectation, Request, expect
from sim_tests.fuzz_emit import Emitter
from sim_tests.fuzz_operands import (
    Environment,
    Fields,
    NoLegalOperands,
    OperandMaker,
    count_fields,
    exact_count,
    image,
    scaled_count,
    step_fields,
)
from sim_tests.fuzz_schedule import (
    Control,
    Node,
    Repeat,
    RingUse,
    Scheduler,
    Step,
    Volley,
    steps_of,
)

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
RINGS = {"stream": Destination.STREAM, "scale": Destination.SCALE}


def fuzz_machine(target: str) -> MachineSpec:
    """A bundled target with shallow buffers, which build fast and wrap often, and an impatient watchdog.

    `small` also gets what no bundled test target has: every weight format, sparse steps, two columns, shared scalers, fewer lanes.
    """
    spec = load_machine(target)
    more: dict[str, Any] = {}
    if target == "small":
        more = {
            "weight_formats": tuple(weight.name for weight in WeightFormat),
            "sparse": 1,
            "matrix_columns": 2,
            "vector_lanes": 4,
            "drain_lanes": 4,
            "result_rows": 128,
            "activation_rows": 256,
        }
    shallow = {
        "stream_words": 32,
        "scale_words": 8,
        "input_words": 64,
        "vector_rows": 64,
        "result_rows": 32,
        "activation_rows": 64,
        "store_rows": 16,
        "scalars": 32,
        "matrix_scales": 8,
        "tokens": 64,
        "watchdog_cycles": 3000,
    }
    memory = dataclasses.replace(spec.memory, words=2048)
    name = f"fuzz_{spec.name}"
    return dataclasses.replace(spec, name=name, memory=memory, **shallow | more)


@dataclass(frozen=True)
class FuzzCase:
    """A program and what to ask of it; `program.machine` has the memory timing to use."""

    seed: int
    program: Program
    request: Request


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


@dataclass(frozen=True)
class Level:
    """Where instructions are added: the units that take part, the loops around them.

    Attributes
    ----------
    units : tuple of Unit
    trips : tuple of int
        Rounds of the open loops.
    in_token_loop : bool
    room : dict of str to int
        Words that each ring has room for.
    """

    units: tuple[Unit, ...]
    trips: tuple[int, ...]
    in_token_loop: bool
    room: dict[str, int]

    def rounds(self) -> int:
        """Rounds of all loops together."""
        result = 1
        for trips in self.trips:
            result *= trips
        return result


class ProgramWriter:
    """Writes one random program."""

    def __init__(self, spec: MachineSpec, rng: random.Random) -> None:
        self.spec = spec
        self.rng = rng
        self.maker = OperandMaker(rng, spec)
        self.position: dict[Unit, int | None] = dict.fromkeys(Unit, 0)
        self.written = dict.fromkeys(RINGS, 0)
        self.read = dict.fromkeys(RINGS, 0)
        self.request = self._request()
        self.chains = rng.random() < 0.5
        """MPE instructions carry sums on to the next one."""

    def case(self, seed: int) -> FuzzCase:
        """The whole program."""
        rng, spec = self.rng, self.spec
        level = Level(
            tuple(Unit), (), False, {"stream": spec.stream_words, "scale": spec.scale_words}
        )
        nodes = self._warm_up(level) if rng.random() < 0.7 else []
        if rng.random() < 0.7:
            nodes += self._body(level, rng.randint(2, 6), increments=False)
            nodes.append(self._token_loop(level))
            nodes += self._body(level, rng.randint(1, 5), increments=True)
        else:
            nodes += self._body(level, rng.randint(8, 20), increments=True)
        chance = rng.choice([0.02, 0.1, 0.3])
        Scheduler(lambda: rng.random() < chance).schedule(nodes)
        machine = dataclasses.replace(spec, memory=self._memory())
        program = Program(machine, Emitter().program(nodes), image(rng, spec))
        return FuzzCase(seed, program, self.request)

    def _warm_up(self, level: Level) -> list[Node]:
        """Something else than zeros in every buffer, so that what is computed later shows faults."""
        rng, spec = self.rng, self.spec
        load = {
            "destination": int(Destination.INPUT),
            "address_base": rng.randrange(spec.memory.words // 8),
        }
        load |= exact_count(rng, "length", spec.input_words, self._environment(level, Unit.LD))
        address = {f"address_{part}": 0 for part in ("register", "shift", "factor")}
        address |= {f"address_stride{i}": 0 for i in range(LOOP_DEPTH)}
        nodes: list[Node] = [
            self.maker.toucher.step(Unit.LD, address | load, self._environment(level, Unit.LD))
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
            environment = self._environment(level, Unit.SFU)
            fields |= exact_count(rng, "length", length, environment) | more
            nodes.append(self.maker.toucher.step(Unit.SFU, fields, environment))
        return nodes

    def _request(self) -> Request:
        rng = self.rng
        prompt = [
            rng.choice([rng.randrange(8), rng.randrange(1 << 20)]) for _ in range(rng.randint(1, 4))
        ]
        stops = tuple(rng.choice([0, rng.randrange(6)]) for _ in range(rng.choice([0, 0, 1, 2, 4])))
        return Request(tuple(prompt), rng.randint(1, 3), stops)

    def _memory(self) -> MemorySpec:
        """Any timing that the machine can have."""
        rng, spec = self.rng, self.spec
        while True:
            denominator = rng.choice([1, 1, 2, 3, 7])
            memory = dataclasses.replace(
                spec.memory,
                read_latency=rng.choice([2, 3, 8, 20, 40]),
                write_latency=rng.choice([1, 2, 12, 30]),
                banks=rng.choice([1, 2, 4, 16]),
                row_words=rng.choice([1, 2, 4, 8]) * spec.burst_beats,
                activate=rng.choice([0, 1, 9, 20]),
                turnaround=rng.choice([0, 1, 4, 9]),
                refresh_interval=rng.choice([rng.randint(150, 600), rng.randint(150, 1200), 3000]),
                refresh_cycles=rng.choice([0, 1, 10, 40]),
                beat_numerator=rng.randint(1, denominator),
                beat_denominator=denominator,
            )
            try:
                return check_machine(dataclasses.replace(spec, memory=memory), "fuzz").memory
            except InputError:
                continue

    # ---------------------------------------------------------------------------------- structure

    def _environment(self, level: Level, unit: Unit) -> Environment:
        return Environment(
            level.trips,
            0 if level.in_token_loop else None,
            self.position[unit],
            len(self.request.prompt),
            self.request.steps,
        )

    def _body(self, level: Level, budget: int, increments: bool = False) -> list[Node]:
        """A serial list of about `budget` things to do, the rings balanced at its end."""
        rng = self.rng
        threads: list[list[str]] = []
        if Unit.LD in level.units and Unit.MPE in level.units and rng.random() < 0.75:
            threads.append(["matrix"] * rng.randint(1, max(1, budget // 3)))
        kinds = ["inner", "inner", "nest", "volley", "sync", "section", "dead"]
        kinds += ["increment"] * (2 * increments)
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
        body = _BodyState()
        while any(threads):
            thread = rng.choice([t for t in threads if t])
            self._add(thread.pop(0), level, nodes, body)
        self._drain_plan(level, nodes, body)
        if not body.regular:
            _forget_positions(nodes)
        body.turnover = {name: self.written[name] - mark[name] for name in RINGS}
        self.last_body = body
        return nodes

    def _add(self, kind: str, level: Level, nodes: list[Node], body: "_BodyState") -> None:
        rng = self.rng
        unit = rng.choice(level.units)
        match kind:
            case "matrix":
                self._matrix(level, nodes, body)
            case "load":
                token = level.in_token_loop and rng.random() < 0.3
                nodes.append(self.maker.load_input(self._environment(level, Unit.LD), token))
            case "store":
                nodes.append(self.maker.store(self._environment(level, Unit.ST)))
            case "vector":
                nodes.append(self.maker.vector(self._environment(level, Unit.SFU), {}))
            case "argmax":
                only = {"reduce": int(Reduce.ARGMAX)}
                nodes.append(self.maker.vector(self._environment(level, Unit.SFU), only))
            case "exchange":
                only = {"reduce": int(Reduce.NONE), "target": int(Target.VECTOR)}
                nodes.append(self.maker.vector(self._environment(level, Unit.SFU), only))
            case "long" if level.rounds() <= LONG_ROUNDS and not level.in_token_loop:
                nodes.append(self.maker.long_vector(self._environment(level, Unit.SFU)))
            case "system":
                nodes.append(
                    self.maker.toucher.step(Unit.SYS, {}, self._environment(level, Unit.SYS))
                )
            case "sync":
                nodes.append(Step(unit))
            case "increment":
                at = self.position[unit]
                self.position[unit] = None if at is None else at + 1
                nodes.append(Control(unit, "increment"))
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
        garbage = [rng.getrandbits(size) << 4 | rng.choice(codes) for _ in range(rng.randint(0, 2))]
        if rng.random() < 0.5 and len(level.trips) < LOOP_DEPTH:
            count = exact_count(rng, "count", 0, self._environment(level, unit))
            return Control(unit, "skip", count, garbage)
        return Control(unit, "jump", {}, garbage)

    def _section(self, level: Level, nodes: list[Node], body: "_BodyState") -> None:
        """Steps that are skipped in prefill; all units that take part must see the same."""
        rng = self.rng
        units = _subset(rng, level.units)
        positions = {self.position[unit] for unit in units}
        if not level.in_token_loop and (len(positions) > 1 or None in positions):
            return
        inside = dataclasses.replace(level, units=units, room=self._room(level, body))
        before = (dict(self.written), dict(self.read))
        steps = self._body(inside, rng.randint(1, 3))
        if any(self.last_body.turnover.values()) or not self.last_body.regular:
            # Whether the rings moved depends on the branch.
            body.regular = False
        if not level.in_token_loop and positions.pop() + 1 < len(self.request.prompt):  # type: ignore[operator]  # None was excluded above
            self.written, self.read = before
        nodes.append(Repeat(units, steps, skip_if=Condition.PREFILL))

    def _inner(self, level: Level, nodes: list[Node], body: "_BodyState") -> None:
        rng = self.rng
        most = MOST_CASES // level.rounds()
        if most < 2:
            return
        units = _subset(rng, level.units)
        if rng.random() < 0.4:
            self._local(level, rng.choice(level.units), nodes)
            return
        trips = min(most, rng.randint(1, 3))
        counts = {u: exact_count(rng, "count", trips, self._environment(level, u)) for u in units}
        room = self._room(level, body)
        inside = Level(units, (*level.trips, trips), level.in_token_loop, room)
        waiting = any(body.loaded[name] > body.used[name] for name in RINGS)
        steps = self._body(inside, rng.randint(1, 4))
        turnover = self.last_body.turnover
        for name, words in turnover.items():
            self.written[name] += (trips - 1) * words
            self.read[name] += (trips - 1) * words
        if waiting:
            _forget_positions(steps)
        if not self.last_body.regular:
            body.regular = False
        nodes.append(Repeat(units, steps, counts, turnover=turnover))

    def _local(self, level: Level, unit: Unit, nodes: list[Node], outer: int = 0) -> None:
        """A loop of one unit: any number of rounds, also none, or left by a branch."""
        rng = self.rng
        trips = min(MOST_CASES // level.rounds(), rng.choice([1, 2, 3]))
        if not level.trips and rng.random() < 0.15:
            trips = rng.randint(MOST_CASES, MANY_ROUNDS)
        counts = count_fields(rng, "count", 0, max(1, trips), self._environment(level, unit))
        inside = Level((unit,), (*level.trips, max(1, trips)), level.in_token_loop, {})
        steps: list[Node] = []
        state = _BodyState()
        own = OWN_KIND[unit]
        for _ in range(rng.randint(1, 3) if trips <= MOST_CASES else 1):
            self._add(rng.choice([own, own, "sync", "dead"]), inside, steps, state)
        loop = Repeat((unit,), steps, {unit: counts})
        if rng.random() < 0.6 and len(inside.trips) < LOOP_DEPTH and trips <= MOST_CASES:
            self._local(inside, unit, steps, outer + 1)
        if rng.random() < (0.6 if outer else 0.4):
            loop.leave_at = rng.randint(0, len(steps))
            loop.leave_close = rng.choice([1, 1 + outer])
            loop.leave_if = rng.choice([Condition.ALWAYS, Condition.PREFILL])
        for step in steps_of(steps):
            step.plain = True
        nodes.append(loop)

    def _nest(self, level: Level, unit: Unit, nodes: list[Node]) -> None:
        """Loops of one unit, down to the deepest."""
        trips = self.rng.choice([1, 2]) if 2 * level.rounds() <= MOST_CASES else 1
        count = exact_count(self.rng, "count", trips, self._environment(level, unit))
        inside = Level((unit,), (*level.trips, trips), level.in_token_loop, {})
        steps: list[Node] = []
        if len(inside.trips) < LOOP_DEPTH:
            self._nest(inside, unit, steps)
        else:
            self._add(OWN_KIND[unit], inside, steps, _BodyState())
        nodes.append(Repeat((unit,), steps, {unit: count}))

    def _token_loop(self, level: Level) -> Repeat:
        """One round a token: SYS's EXECUTE, a SYNC of all others behind it, then anything."""
        rounds = self.request.steps
        inside = Level(level.units, (rounds,), True, level.room)
        execute = self.maker.toucher.step(Unit.SYS, {}, self._environment(inside, Unit.SYS))
        execute.plain = True
        nodes: list[Node] = [execute]
        nodes += [Step(unit, reads={"token": 1}, plain=True) for unit in Unit if unit != Unit.SYS]
        rest = self._body(inside, self.rng.randint(3, 9))
        if not self.last_body.regular:
            _forget_positions(rest)
        turnover = self.last_body.turnover
        # What each unit does first behind its branch holds back the next token.
        rest = [*(Step(unit, reads={"token": 1}) for unit in Unit if unit != Unit.SYS), *rest]
        at = None if self.request.stop_tokens else rounds
        self.position = dict.fromkeys(Unit, at)
        return Repeat(level.units, [*nodes, *rest], token_loop=True, turnover=turnover)

    # ------------------------------------------------------------------------------ matrix engine

    def _room(self, level: Level, body: "_BodyState") -> dict[str, int]:
        return {
            name: room - (body.loaded[name] - body.used[name]) for name, room in level.room.items()
        }

    def _matrix(self, level: Level, nodes: list[Node], body: "_BodyState") -> None:
        """Plan an MPE instruction, and load and execute some of what is planned."""
        rng = self.rng
        if rng.random() < 0.25 and len(level.trips) and self._varying_pair(level, nodes, body):
            return
        body.plan += self._planned(level)
        self._advance_plan(level, nodes, body, rng.randint(0, 3))

    def _planned(self, level: Level) -> list[Fields]:
        """An MPE instruction that pops, perhaps behind one or two that read the same words first."""
        rng = self.rng
        room = {name: level.room.get(name, 0) for name in RINGS}
        if room["stream"] < 2:
            return []
        # Mostly half a ring, so that there is room for the next beside it.
        words = max(2, room["stream"] // rng.choice([1, 2, 2]))
        step = rng.choice([f for f in self.spec.step_formats if f.block_words(1) <= words])
        scaled = rng.randint(0, 1) if room["scale"] else 0
        blocks = min(rng.choice([1, 1, 2, 3, rng.randint(4, 20)]), words // step.block_words(1))
        longest = self.spec.activation_rows * self.spec.lanes // step.span
        steps = rng.randint(1, min(max(1, _steps_in(step, words // blocks)), longest))
        group = rng.choice([d for d in range(1, steps + 1) if steps % d == 0])
        if scaled and blocks * steps // group > room["scale"]:
            group, blocks = steps, 1
        fields = step_fields(step) | {"scaled": scaled, "first": 1, "last": 1, "pop": 1}
        fields |= {
            "blocks": blocks,
            "steps": steps,
            "vectors": self._vectors(max(1, 8 // blocks)),
            "group_steps": group if scaled else rng.randrange(16),
        }
        if blocks == 1 and self.chains and rng.random() < 0.6:
            fields |= {"first": rng.randint(0, 1), "last": int(rng.random() < 0.7)}
            fields["vectors"] = self.spec.matrix_columns
        result = [fields]
        if rng.random() < 0.3:
            # Other formats may read the same words first, as long as they need no more of them.
            need = step.block_words(steps)
            others = [f for f in self.spec.step_formats if f.block_words(steps) <= need]
            result.insert(0, fields | step_fields(rng.choice(others)) | {"pop": 0})
        return result

    def _vectors(self, most: int) -> int:
        """Vectors of an MPE instruction; where sums are carried on, every pass leaves sums of all columns."""
        vectors, columns = min(self.rng.choice([1, 1, 2, 3, 5]), most), self.spec.matrix_columns
        return -(-vectors // columns) * columns if self.chains else vectors

    def _advance_plan(self, level: Level, nodes: list[Node], body: "_BodyState", most: int) -> None:
        """Emit up to `most` loads or MPE instructions of the plan."""
        rng = self.rng
        for _ in range(most):
            if not body.plan:
                return
            fields = body.plan[0]
            need = _words(fields)
            waiting = {name: body.loaded[name] - body.used[name] for name in RINGS}
            wanted = {name: sum(_words(f)[name] for f in body.plan if f["pop"]) for name in RINGS}
            possible = [
                name
                for name in RINGS
                if wanted[name] > waiting[name] and level.room.get(name, 0) > waiting[name]
            ]
            ready = all(waiting[name] >= need[name] for name in RINGS)
            if ready and (not possible or rng.random() < 0.5):
                self._execute_matrix(level, nodes, body, fields)
                body.plan.pop(0)
                continue
            short = [name for name in possible if waiting[name] < need[name]]
            name = rng.choice(short or possible)
            limit = min(wanted[name] - waiting[name], level.room[name] - waiting[name])
            words = min(limit, rng.choice([1, 2, 5, limit, limit]))
            count = exact_count(rng, "length", words, self._environment(level, Unit.LD))
            step = self.maker.load_ring(self._environment(level, Unit.LD), RINGS[name], count)
            step.rings[name] = RingUse(self.written[name], words, True, self._ring_depth(name))
            self.written[name] += words
            body.loaded[name] += words
            nodes.append(step)

    def _drain_plan(self, level: Level, nodes: list[Node], body: "_BodyState") -> None:
        while body.plan:
            self._advance_plan(level, nodes, body, 1)

    def _execute_matrix(
        self, level: Level, nodes: list[Node], body: "_BodyState", fields: Fields
    ) -> None:
        rng = self.rng
        environment = self._environment(level, Unit.MPE)
        counts = ("blocks", "steps", "vectors")
        encoded = {k: v for k, v in fields.items() if k not in counts}
        for name in counts:
            encoded |= exact_count(rng, name, fields[name], environment)
        step = self.maker.matrix(environment, encoded)
        for name, words in _words(fields).items():
            if words:
                step.rings[name] = RingUse(self.read[name], words, False, self._ring_depth(name))
                if fields["pop"]:
                    self.read[name] += words
                    body.used[name] += words
        nodes.append(step)

    def _varying_pair(self, level: Level, nodes: list[Node], body: "_BodyState") -> bool:
        """LD and MPE whose counts change together from round to round; False if nothing of the kind was found."""
        rng = self.rng
        if any(body.loaded[name] > body.used[name] for name in RINGS) or body.plan:
            return False
        whole = [f for f in self.spec.step_formats if f.kept or f.weight_quarters % 4 == 0]
        format = rng.choice(whole)
        limit = min(level.room["stream"] // format.block_words(1), level.room["scale"])
        if limit < 1:
            return False
        environments = [self._environment(level, unit) for unit in (Unit.LD, Unit.MPE)]
        if environments[0] != environments[1]:
            return False
        steps = count_fields(rng, "steps", 1, min(limit, 8), environments[1])
        if max(steps["steps_cap"] * 2, steps["steps_step"] * 2) >= 1 << 20:
            steps["steps_cap"] = 1 << 10
        scaled = rng.randint(0, 1)
        kind = {
            "scaled": scaled,
            "first": 1,
            "last": 1,
            "pop": 1,
            "group_steps": 1,
        }
        kind |= step_fields(format) | exact_count(rng, "blocks", 1, environments[1]) | steps
        kind |= exact_count(rng, "vectors", self._vectors(4), environments[1])
        loads = [("stream", format.block_words(1)), ("scale", 1)][: 1 + scaled]
        for name, factor in loads:
            count = scaled_count("length", "steps", steps, factor)
            step = self.maker.load_ring(environments[0], RINGS[name], count)
            step.rings[name] = RingUse(None, 0, True, self._ring_depth(name))
            nodes.append(step)
        step = self.maker.matrix(environments[1], kind)
        for name, _ in loads:
            step.rings[name] = RingUse(None, 0, False, self._ring_depth(name))
        nodes.append(step)
        body.regular = False
        return True

    def _ring_depth(self, name: str) -> int:
        return self.spec.stream_words if name == "stream" else self.spec.scale_words


@dataclass
class _BodyState:
    """Rings and plan of a body that is being written."""

    plan: list[Fields] = field(default_factory=list)
    loaded: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RINGS, 0))
    used: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RINGS, 0))
    regular: bool = True
    turnover: dict[str, int] = field(default_factory=dict)


def _words(fields: Fields) -> dict[str, int]:
    """Ring words that an MPE instruction reads."""
    blocks, steps = fields["blocks"], fields["steps"]
    groups = steps // fields["group_steps"] if fields["scaled"] else 0
    return {"stream": blocks * step_format(fields).block_words(steps), "scale": blocks * groups}


def _steps_in(step: StepFormat, words: int) -> int:
    """Steps of a block that a number of words holds."""
    steps = words // step.block_words(1)
    while step.block_words(steps + 1) <= words:
        steps += 1
    return steps


def _forget_positions(nodes: list[Node]) -> None:
    """From here on ring uses of these nodes meet all others."""
    for step in steps_of(nodes):
        for name, use in step.rings.items():
            step.rings[name] = dataclasses.replace(use, start=None)


def _subset(rng: random.Random, units: tuple[Unit, ...]) -> tuple[Unit, ...]:
    """Some of the units, LD and MPE together more often than not."""
    chosen = {unit for unit in units if rng.random() < 0.6}
    if not chosen or rng.random() < 0.3:
        chosen |= set(units) & {Unit.LD, Unit.MPE}
    if not chosen:
        chosen = {rng.choice(units)}
    return tuple(unit for unit in units if unit in chosen)
