"""The machine message by message: every chip, every link, every message, in plain Python.

Slow and literal. `emulator.hardwired_system.engine` gives the same times, to the tick, by treating links
that carry the same as one; tests hold the two against each other.
"""

import heapq
import itertools
from dataclasses import dataclass, field
from fractions import Fraction

from emulator.hardwired_system.engine import Requests
from emulator.hardwired_system.keys_values import attention_cost, resident_bytes
from emulator.hardwired_system.layer import head_operations, layer_operations
from emulator.hardwired_system.machine import SLOT_BYTES, Arbitration, SystemMachine
from emulator.hardwired_system.model import SystemModel
from emulator.hardwired_system.operation import Kind, Operation

Chip = tuple[int, int]


@dataclass
class Link:
    """From one chip to another; a queue in order of arrival."""

    free: Fraction = Fraction(0)
    carried: int = 0


@dataclass
class Token:
    """One token on its way, with what is left to do in its layer."""

    sequence: int
    position: int
    layer: int = 0
    waiting: list[Operation] = field(default_factory=list)
    data_ready: Fraction = Fraction(0)
    ask: bool = True


class Fabric:
    """A small run of sequences that generate tokens, one position of the pipeline each.

    Parameters
    ----------
    model, machine
        As for the engine; routing must be even.

    Members
    -------
    links : dict
        Every directed link, by source and target chip.
    """

    def __init__(self, model: SystemModel, machine: SystemMachine) -> None:
        if not machine.even_routing:
            raise ValueError("the message-by-message machine draws no experts")
        self.model, self.machine = model, machine
        self.links: dict[tuple[Chip, Chip], Link] = {}
        for row, column in itertools.product(range(machine.rows), range(machine.columns)):
            for other in range(machine.rows):
                if other != row:
                    self.links[(row, column), (other, column)] = Link()
            for other in range(machine.columns):
                if other != column:
                    self.links[(row, column), (row, other)] = Link()
        self.servers: dict[tuple[str, int, int], Fraction] = {}
        self.lanes = [Fraction(0)] * machine.lanes(model.layers)
        self.hbm = Fraction(0)
        self.events: list[tuple[Fraction, int, Token]] = []

    def run(self, requests: Requests) -> list[tuple[int, Fraction]]:
        """Return (sequence, end in seconds) of every token, in order of time."""
        ended: list[tuple[int, Fraction]] = []
        left = list(requests.output)
        for index, arrival in enumerate(requests.arrival):
            token = Token(index, int(requests.position[index]))
            when = Fraction(int(arrival), self.machine.ticks_per_second)
            self.events.append((when, index, self._enter(token)))
        heapq.heapify(self.events)
        while self.events:
            now, slot, token = heapq.heappop(self.events)
            self._ask_for_data(token, now)
            if token.waiting[0].kind is Kind.ATTENTION and self._data_due(token) > now:
                heapq.heappush(self.events, (self._data_due(token), slot, token))
                continue
            end = self._perform(token.waiting.pop(0), token, slot, now)
            if not token.waiting:
                token.layer += 1
                if token.layer > self.model.layers:
                    ended.append((token.sequence, end))
                    left[token.sequence] -= 1
                    if not left[token.sequence]:
                        continue
                    token = Token(token.sequence, token.position + 1)
                self._enter(token)
            heapq.heappush(self.events, (end, slot, token))
        return sorted(ended, key=lambda entry: entry[1])

    def _enter(self, token: Token) -> Token:
        inside = token.layer < self.model.layers
        make = layer_operations if inside else head_operations
        token.waiting = list(make(self.model, self.machine))
        return token

    def _ask_for_data(self, token: Token, now: Fraction) -> None:
        if not token.ask:
            return
        token.ask, token.data_ready = False, now
        fresh = token.layer == 0 and token.waiting[0].name == self._first_name()
        layer = 0 if fresh else token.layer + 1
        if layer >= self.model.layers:
            return
        cost = attention_cost(self.model, self.machine)
        window, full = resident_bytes(self.model, self.machine)
        attended = self.model.attended(layer, token.position + 1)
        resident = window if self.model.windowed[layer] else full
        ticks = cost.fetch_ticks(attended, resident)
        start = max(now, self.hbm) if self.machine.hbm_shared else now
        token.data_ready = start + Fraction(ticks, self.machine.ticks_per_second)
        if self.machine.hbm_shared:
            self.hbm = token.data_ready

    def _first_name(self) -> str:
        return layer_operations(self.model, self.machine)[0].name

    def _perform(self, operation: Operation, token: Token, slot: int, now: Fraction) -> Fraction:
        if operation.kind is Kind.LINK:
            arrivals = [
                self._send(self.links[path], size, now)
                for path, size in self._paths(operation, token)
            ]
            latency = Fraction(self.machine.latency_ticks, self.machine.ticks_per_second)
            return max(arrivals) + latency
        if operation.kind is Kind.ATTENTION:
            return self._attend(token, slot, now)
        key = (operation.kind.name, token.layer, operation.step)
        start = max(now, self.servers.get(key, now))
        second = self.machine.ticks_per_second
        self.servers[key] = start + Fraction(operation.occupied, second)
        return start + Fraction(operation.total, second)

    def _paths(self, operation: Operation, token: Token) -> list[tuple[tuple[Chip, Chip], int]]:
        """Every message of a collective: who sends how many bytes to whom."""
        sizes = dict(operation.messages)
        keeper = token.position % self.machine.rows
        result = []
        for source, target in self.links:
            if source[1] == target[1]:
                size = sizes.get("column", 0)
                if target[0] == keeper:
                    size += sizes.get("keeper", 0)
            else:
                size = sizes.get("row", 0)
            if size:
                result.append(((source, target), size))
        return result

    def _send(self, link: Link, data_bytes: int, now: Fraction) -> Fraction:
        machine = self.machine
        slots = -(-data_bytes // SLOT_BYTES)
        on_wire = Fraction(slots * machine.flit_bytes, machine.flit_slots)
        link.carried += data_bytes
        if machine.arbitration is Arbitration.STATIC:
            share = machine.in_flight(self.model.layers)
            return now + on_wire * share / machine.link_bytes_per_second
        link.free = max(now, link.free) + on_wire / machine.link_bytes_per_second
        return link.free

    def _attention_time(self, token: Token) -> Fraction:
        attended = self.model.attended(token.layer, token.position + 1)
        ticks = attention_cost(self.model, self.machine).ticks(attended)
        return Fraction(ticks, self.machine.ticks_per_second)

    def _data_due(self, token: Token) -> Fraction:
        """When attention may begin so that the data keep up with it to the end."""
        return token.data_ready - self._attention_time(token)

    def _attend(self, token: Token, slot: int, now: Fraction) -> Fraction:
        enough = len(self.lanes) >= self.machine.in_flight(self.model.layers)
        lane = slot if enough else self.lanes.index(min(self.lanes))
        self.lanes[lane] = max(now, self.lanes[lane]) + self._attention_time(token)
        token.ask = True
        return self.lanes[lane]
