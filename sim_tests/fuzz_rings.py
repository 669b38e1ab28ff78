"""Random use of the rings: loads that fill them and instructions of the matrix engine that empty them, always balanced."""

import dataclasses
import random
from dataclasses import dataclass, field

from emulator.units.matrix_check import step_format
from hw.spec.instructions import Destination, Unit
from hw.spec.machine import MachineSpec
from hw.spec.weight_format import StepFormat
from sim_tests.fuzz_case import random_request
from sim_tests.fuzz_fields import (
    Environment,
    Fields,
    count_fields,
    exact_count,
    scaled_count,
    step_fields,
)
from sim_tests.fuzz_operands import OperandMaker
from sim_tests.fuzz_schedule import Node, RingUse, steps_of

RINGS = {"stream": Destination.STREAM, "scale": Destination.SCALE}


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


@dataclass
class Body:
    """Rings and plan of a body that is being written."""

    plan: list[Fields] = field(default_factory=list)
    loaded: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RINGS, 0))
    used: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RINGS, 0))
    regular: bool = True
    turnover: dict[str, int] = field(default_factory=dict)


class RingWriter:
    """Writes instructions that use the rings, and knows what is in these.

    Parameters
    ----------
    spec : MachineSpec
    rng : random.Random
    """

    def __init__(self, spec: MachineSpec, rng: random.Random) -> None:
        self.spec = spec
        self.rng = rng
        self.maker = OperandMaker(rng, spec)
        self.position: dict[Unit, int | None] = dict.fromkeys(Unit, 0)
        self.skipped: dict[Unit, int] = dict.fromkeys(Unit, 0)
        self.written = dict.fromkeys(RINGS, 0)
        self.read = dict.fromkeys(RINGS, 0)
        self.request = random_request(rng)
        self.chains = rng.random() < 0.5
        """MPE instructions carry sums on to the next one."""

    def environment(self, level: Level, unit: Unit) -> Environment:
        return Environment(
            level.trips,
            0 if level.in_token_loop else None,
            self.position[unit],
            self.skipped[unit],
            len(self.request.prompt),
            self.request.steps,
        )

    def room(self, level: Level, body: Body) -> dict[str, int]:
        return {
            name: room - (body.loaded[name] - body.used[name]) for name, room in level.room.items()
        }

    def matrix(self, level: Level, nodes: list[Node], body: Body) -> None:
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

    def _advance_plan(self, level: Level, nodes: list[Node], body: Body, most: int) -> None:
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
            count = exact_count(rng, "length", words, self.environment(level, Unit.LD))
            step = self.maker.load_ring(self.environment(level, Unit.LD), RINGS[name], count)
            step.rings[name] = RingUse(self.written[name], words, True, self._ring_depth(name))
            self.written[name] += words
            body.loaded[name] += words
            nodes.append(step)

    def drain_plan(self, level: Level, nodes: list[Node], body: Body) -> None:
        while body.plan:
            self._advance_plan(level, nodes, body, 1)

    def _execute_matrix(self, level: Level, nodes: list[Node], body: Body, fields: Fields) -> None:
        rng = self.rng
        environment = self.environment(level, Unit.MPE)
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

    def _varying_pair(self, level: Level, nodes: list[Node], body: Body) -> bool:
        """LD and MPE whose counts change together from round to round; False if nothing of the kind was found."""
        rng = self.rng
        if any(body.loaded[name] > body.used[name] for name in RINGS) or body.plan:
            return False
        whole = [f for f in self.spec.step_formats if f.kept or f.weight_quarters % 4 == 0]
        format = rng.choice(whole)
        limit = min(level.room["stream"] // format.block_words(1), level.room["scale"])
        if limit < 1:
            return False
        environments = [self.environment(level, unit) for unit in (Unit.LD, Unit.MPE)]
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


def forget_positions(nodes: list[Node]) -> None:
    """From here on ring uses of these nodes meet all others."""
    for step in steps_of(nodes):
        for name, use in step.rings.items():
            step.rings[name] = dataclasses.replace(use, start=None)
