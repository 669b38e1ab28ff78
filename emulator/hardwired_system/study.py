"""Throughput, shares of time, bounds and sensitivity of the 16-chip machine, all emulated."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from emulator.hardwired_system.engine import Requests, Served, run
from emulator.hardwired_system.keys_values import attention_cost, resident_bytes, sequence_limit
from emulator.hardwired_system.layer import head_operations, layer_operations
from emulator.hardwired_system.machine import SLOT_BYTES, SystemMachine, is_static
from emulator.hardwired_system.model import SystemModel
from emulator.hardwired_system.operation import Category, Kind, Operation
from emulator.hardwired_system.operation_tables import collision_odds, turn_tables
from hw.spec.errors import InputError

LONGEST_PUBLISHED = 1 << 19
"""The longest context with published figures, beyond the maximum of the model itself."""

DEFAULT_STEPS = 6
WARM_STEPS = 1
LEAST_STEPS = WARM_STEPS + 3
SWING = 0.2


@dataclass(frozen=True)
class Measurement:
    """One machine, model and context in steady state.

    Members
    -------
    context : int
        Positions that every sequence has.
    in_flight : int
        Tokens on their way at once.
    tokens_per_second : float
    token_seconds : float
        From a token's entry to the next of the same sequence.
    shares : dict[str, float]
        Share of a token's time by category; they sum to one.
    stage_cycles : list[float]
        Cycles a layer in each of the six stages, and in what follows the layers (a token).
    lanes_used : float
        Attention lanes of a chip in use, mean.
    """

    context: int
    in_flight: int
    tokens_per_second: float
    token_seconds: float
    shares: dict[str, float]
    stage_cycles: list[float]
    lanes_used: float

    @property
    def per_user(self) -> float:
        """Tokens a second that one of the users gets."""
        return 1.0 / self.token_seconds


def check_context(model: SystemModel, context: int) -> None:
    """Raise `InputError` unless figures for this context make sense."""
    limit = max(model.maximum_positions, LONGEST_PUBLISHED)
    if not 1 <= context <= limit:
        raise InputError(f"--context: expected 1 to {limit}, found {context}")


def lone_ticks(model: SystemModel, machine: SystemMachine, context: int) -> int:
    """Ticks of one token's operations without any waiting."""

    def ticks(operation: Operation) -> int:
        link = max(operation.column + operation.extra, operation.row)
        wait = machine.latency_ticks if operation.kind is Kind.LINK else 0
        return link + wait + operation.total

    cost = attention_cost(model, machine)
    total = sum(map(ticks, head_operations(model, machine)))
    total += model.layers * sum(map(ticks, layer_operations(model, machine)))
    return total + sum(cost.ticks(model.attended(n, context)) for n in range(model.layers))


def steady_requests(
    model: SystemModel, machine: SystemMachine, context: int, steps: int, users: int
) -> Requests:
    """`users` sequences of one length, which begin evenly spread over the time of a token."""
    gap = lone_ticks(model, machine, context) // users
    one = np.ones(users, np.int64)
    return Requests(one, one * steps, np.arange(users) * gap, one * (context - 1), True)


def measure(
    model: SystemModel,
    machine: SystemMachine,
    context: int,
    steps: int = DEFAULT_STEPS,
    users: int | None = None,
) -> Measurement:
    """Run every position of the pipeline for `steps` tokens at a fixed context.

    The first steps fill the pipeline and are left out.

    Raises
    ------
    InputError
        If the context is not possible or the memory of a chip does not hold one sequence of it.
    """
    check_context(model, context)
    if steps < LEAST_STEPS:
        raise InputError(f"--steps: expected {LEAST_STEPS} or more, found {steps}")
    slots = machine.in_flight(model.layers)
    slots = min(users or slots, max(1, sequence_limit(model, machine, context + steps)))
    requests = steady_requests(model, machine, context, steps, slots)
    served = run(model, machine, requests, slots * steps)
    return _summary(model, machine, served, context, slots)


def _summary(
    model: SystemModel, machine: SystemMachine, served: Served, context: int, slots: int
) -> Measurement:
    # The first steps fill the pipeline, in the last one it empties; between them all are at work.
    order = np.lexsort((served.end, served.sequence))
    ends = served.end[order].reshape(slots, -1)
    rates = (ends.shape[1] - 2 - WARM_STEPS) / (ends[:, -2] - ends[:, WARM_STEPS])
    inside = np.zeros(len(served.end), bool)
    inside[order] = np.tile(
        (np.arange(ends.shape[1]) > WARM_STEPS) & (np.arange(ends.shape[1]) < ends.shape[1] - 1),
        slots,
    )
    times = served.times[inside].sum(axis=0)
    tokens = int(inside.sum())
    stages = served.stages / len(served.end) / machine.ticks_per_cycle
    stages[:-1] /= model.layers
    whole = served.end[-1] - served.begin[0]
    return Measurement(
        context=context,
        in_flight=slots,
        tokens_per_second=float(rates.sum() * machine.ticks_per_second),
        token_seconds=float(times.sum()) / tokens / machine.ticks_per_second,
        shares={c.name.lower(): float(times[c] / times.sum()) for c in Category},
        stage_cycles=[float(cycles) for cycles in stages],
        lanes_used=float(served.busy[3] / whole),
    )


def bounds(model: SystemModel, machine: SystemMachine, context: int) -> dict[str, float]:
    """Tokens a second that each resource alone would allow; the least is the bound.

    Waiting and latency count in "tokens in flight" alone: what one token after the other takes.
    """
    second = machine.ticks_per_second
    odds = np.diff(collision_odds(model, machine), prepend=0.0)
    tables = turn_tables(model, machine)
    layer = np.tensordot(odds, tables, axes=1)
    kinds = tables[0][:, 0]
    cost = attention_cost(model, machine)
    attended = [model.attended(n, context) for n in range(model.layers)]
    # Ticks of static shares are those of a share: all tokens in flight use the link side by side.
    share = machine.in_flight(model.layers) if is_static(machine) else 1
    column = model.layers * (layer[:, 2].sum() + layer[:, 4].sum() / machine.rows)
    row = model.layers * layer[:, 3].sum()
    steps = layer[kinds == Kind.WIRES, 5]
    vector = layer[kinds == Kind.VECTOR, 5].sum()
    head = [o.occupied for o in head_operations(model, machine) if o.kind is Kind.WIRES]
    lanes = machine.lanes(model.layers)
    extra = float((layer[:, 6].sum() - tables[0][:, 6].sum()) * model.layers)
    slots = min(machine.in_flight(model.layers), max(1, sequence_limit(model, machine, context)))
    window, full = resident_bytes(model, machine)
    fetched = sum(
        cost.fetch_ticks(model.attended(n, context), window if model.windowed[n] else full)
        for n in range(model.layers)
    )
    # Without sharing, each token in flight has that bandwidth to itself.
    hbm = (1 if machine.hbm_shared else slots) * second / max(1, fetched)
    found = {
        "links of a column": second * share / column,
        "links of a row": second * share / row,
        "projection, busiest step of a layer": second / steps.max(),
        "projection, unembedding": second / max(head),
        "vector pipeline of a layer": second / vector,
        "attention lanes": lanes * second / sum(map(cost.ticks, attended)),
        "HBM": hbm,
        "tokens in flight": slots * second / (lone_ticks(model, machine, context) + extra),
    }
    return {name: float(rate) for name, rate in found.items()}


def bound(model: SystemModel, machine: SystemMachine, context: int) -> tuple[str, float]:
    """Name and tokens a second of the tightest bound."""
    found = bounds(model, machine, context)
    name = min(found, key=lambda key: found[key])
    return name, found[name]


def sensitivity(
    model: SystemModel, machine: SystemMachine, context: int
) -> dict[str, dict[str, float]]:
    """Change of throughput, in per cent, for another value of each assumption.

    Numbers become 20 % less and 20 % more; what is no number, or too small for that, becomes what it could be
    otherwise: the key is then ``if_`` and that value.
    """
    base = measure(model, machine, context).tokens_per_second
    result: dict[str, dict[str, float]] = {}
    for entry in dataclasses.fields(machine):
        trials = _trials(machine, entry)
        if trials:
            result[entry.name] = {
                label: float(100 * (measure(model, other, context).tokens_per_second / base - 1))
                for label, other in trials.items()
            }
    return result


def _trials(machine: SystemMachine, entry: "dataclasses.Field[Any]") -> dict[str, SystemMachine]:
    """Machines with other values of one assumption."""
    value, otherwise = getattr(machine, entry.name), entry.metadata["otherwise"]
    trials = {}
    if entry.metadata["swept"]:
        for label, factor in (("minus_20_percent", 1 - SWING), ("plus_20_percent", 1 + SWING)):
            trials[label] = max(1, round(value * factor))
            if entry.name == "flit_slots":
                trials[label] = min(trials[label], machine.flit_bytes // SLOT_BYTES)
    elif otherwise is not None and otherwise != value:
        trials[f"if_{otherwise}".lower()] = otherwise
    return {
        label: dataclasses.replace(machine, **{entry.name: trial})
        for label, trial in trials.items()
    }


def facts(measurement: Measurement) -> dict[str, Any]:
    """A measurement as the command prints it."""
    return {
        "context": measurement.context,
        "tokens_in_flight": measurement.in_flight,
        "tokens_per_second": measurement.tokens_per_second,
        "tokens_per_second_per_user": measurement.per_user,
        "time_shares": measurement.shares,
        "stage_cycles": measurement.stage_cycles,
        "attention_lanes_used": measurement.lanes_used,
    }
