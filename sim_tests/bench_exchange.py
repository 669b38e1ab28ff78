"""cocotb tests of what passes between cores: every beat and its cycle, the common start, the token of all cores."""

import random
from collections import Counter
from typing import Any

import cocotb

from sim_tests.streams import PACES, Bench, Pace, parameters, seed

EXCHANGES = 60
TOKEN_BITS = 20
KEY_BITS = 32


class SendingCore:
    """A core that comes to its exchanges whenever it likes, and then sends beats as all others do."""

    def __init__(self, dut: Any, number: int, rng: random.Random, pace: Pace) -> None:
        self.dut, self.number, self.rng, self.pace = dut, number, rng, pace
        self.wait = pace.draw(rng)
        self.since: int | None = None
        """Cycle of the offer that waits."""

    def port(self, name: str) -> Any:
        """An input of the exchange that is this core's."""
        return getattr(self.dut, f"{name}__{self.number}")


class Network:
    """All cores, and what must come out: each beat of each core in its cycle."""

    def __init__(self, bench: Bench, pace: Pace) -> None:
        given = parameters()
        self.bench, self.dut = bench, bench.dut
        self.rng = random.Random(f"{seed()} {pace}")
        self.pace = pace
        self.lanes_bits = 32 * given["lanes"]
        self.latency = given["latency"]
        count = given["cores"]
        self.cores = [SendingCore(self.dut, number, self.rng, pace) for number in range(count)]
        self.expected: dict[int, dict[str, int]] = {}
        """Cycle -> what every core receives."""
        self.plan: list[tuple[int, bool]] = []
        """Cycles in which all send a beat, and whether it is the last of its row."""
        self.begun: list[int] = []
        self.received = 0
        self.bins: Counter[str] = Counter()

    def step(self) -> None:
        """One cycle: look at the outputs, then drive the next cycle's inputs."""
        cycle = self.bench.cycle
        self._check(cycle)
        if self.dut.go.value:
            self._begin(cycle)
        offers = 0
        for core in self.cores:
            if core.since is None and not self.plan:
                core.wait -= 1
                if core.wait < 0:
                    core.since = cycle + 1
            offers |= (core.since is not None) << core.number
        self.dut.offer.value = offers
        self._send(cycle + 1)

    def _begin(self, cycle: int) -> None:
        """All begin at once; how late the last one came is what made the others wait."""
        times = [core.since for core in self.cores]
        assert None not in times, f"cycle {cycle}: begun, though not all are ready: {times}"
        late = max(t for t in times if t is not None)
        assert cycle == late, f"begun in cycle {cycle}, all were ready in {late}"
        for core in self.cores:
            self.bins[f"core {core.number} {'last' if core.since == late else 'waits'}"] += 1
            core.since, core.wait = None, self.pace.draw(self.rng)
        self.begun.append(cycle)
        at = cycle + self.rng.randint(3, 9)
        for _ in range(self.rng.randint(1, 5)):
            self.plan.append((at, self.rng.random() < 0.3))
            # As near as beats may be, or further apart.
            at += len(self.cores) + self.rng.choice([0, 0, 0, 1, 2, 7])
            self.bins["beats without a gap"] += 1

    def _send(self, cycle: int) -> None:
        beat = self.plan.pop(0) if self.plan and self.plan[0][0] == cycle else None
        for core in self.cores:
            data = self.rng.getrandbits(self.lanes_bits)
            valid, last = int(beat is not None), int(beat is not None and beat[1])
            # What is not valid means nothing.
            core.port("sent").value = valid | last << 1 | data << 2
            if beat is not None:
                self.expected[cycle + self.latency + core.number] = {
                    "first": int(core.number == 0),
                    "final": int(core.number == len(self.cores) - 1),
                    "last": last,
                    "data": data,
                }

    def _check(self, cycle: int) -> None:
        word = int(self.dut.o.value)
        expected = self.expected.pop(cycle, None)
        assert word & 1 == (expected is not None), f"cycle {cycle}: valid {word & 1}, {expected}"
        if expected is not None:
            found = {"first": word >> 1 & 1, "final": word >> 2 & 1, "last": word >> 3 & 1}
            found["data"] = word >> 4
            assert found == expected, f"cycle {cycle}: {found}, expected {expected}"
            self.received += 1


def quiet(dut: Any) -> None:
    """No input does anything."""
    dut.offer.value = 0
    for core in range(parameters()["cores"]):
        for name in ("sent", "key", "index"):
            getattr(dut, f"{name}__{core}").value = 0


@cocotb.test()
@cocotb.parametrize(gaps=list(PACES))
async def every_core_gets_every_beat_in_its_cycle(dut: Any, gaps: str) -> None:
    quiet(dut)
    bench = await Bench.start(dut)
    network = Network(bench, PACES[gaps])
    bench.agents.append(network)
    while len(network.begun) < EXCHANGES:
        await bench.cycles(10)
    bench.agents.remove(network)
    assert network.received > EXCHANGES * len(network.cores)
    if gaps != "flowing":
        places = {
            f"core {core} {how}" for core in range(len(network.cores)) for how in ("last", "waits")
        }
        assert places <= set(network.bins), network.bins


@cocotb.test()
async def the_token_is_that_of_the_largest_key(dut: Any) -> None:
    given = parameters()
    count, latency = given["cores"], given["latency"]
    quiet(dut)
    bench = await Bench.start(dut)
    rng = random.Random(seed())
    waiting: list[int] = []
    ties = 0
    for _ in range(2000):
        few = rng.random() < 0.7
        keys = [rng.randrange(3) if few else rng.getrandbits(KEY_BITS) for _ in range(count)]
        indices = [rng.randrange(3) if few else rng.getrandbits(17) for _ in range(count)]
        for core in range(count):
            getattr(dut, f"key__{core}").value = keys[core]
            getattr(dut, f"index__{core}").value = indices[core]
        ties += keys.count(max(keys)) > 1
        tokens = [index * count + core for core, index in enumerate(indices)]
        best = [token for token, key in zip(tokens, keys, strict=True) if key == max(keys)]
        waiting.append(min(best))
        await bench.cycles(1)
        # Inputs count from the next edge on, so the answer of `latency` cycles ago is there now.
        if len(waiting) > latency + 1:
            waiting.pop(0)
            assert int(dut.token.value) == waiting[0] % (1 << TOKEN_BITS)
    assert ties > 300
