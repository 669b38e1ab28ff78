"""The event engine: tokens, resources with queues, and a heap of what happens next; times are exact.

Each token in flight has a position of the pipeline. The engine takes the earliest event, gives the token
its next operation, and puts back the time at which that ends. A resource serves in order of arrival (equal
times: lower position first). `emulator.hardwired_system.fabric` does the same message by message.
"""

import dataclasses
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from emulator.hardwired_system.layer import (
    STAGES,
    Category,
    Kind,
    Operation,
    attention_cost,
    head_operations,
    is_static,
    layer_operations,
)
from emulator.hardwired_system.machine import SystemMachine
from emulator.hardwired_system.model import SystemModel
from hw.spec.errors import InputError

Ints = npt.NDArray[np.int64]

_ASK = -1
_LINK, _WIRES, _VECTOR = int(Kind.LINK), int(Kind.WIRES), int(Kind.VECTOR)
_FIXED = len(Kind)
_STALL = int(Category.STALL)
_COLUMNS = ("kind", "category", "column", "row", "extra", "occupied", "total", "step", "stage")

# How long an event is put off that has to wait for another token of its sequence, in cycles.
RETRY_CYCLES = 64


@dataclass(frozen=True)
class Requests:
    """Sequences to serve, in order of arrival.

    Members
    -------
    prompt, output : int64 [n]
        Tokens of the prompt, at least 1; tokens to generate, at least 1.
    arrival : int64 [n]
        Ticks, ascending.
    position : int64 [n]
        Positions that are in the buffer already when the sequence arrives.
    frozen : bool
        Whether contexts stay as long as they are, to measure one length.
    """

    prompt: Ints
    output: Ints
    arrival: Ints
    position: Ints
    frozen: bool = False


@dataclass(frozen=True)
class Served:
    """What became of each token, in the order in which they ended.

    Members
    -------
    sequence, begin, end : int64 [tokens]
        Which sequence; when the token entered the first layer and left the last operation, in ticks.
    generated : int64 [tokens]
        1 where a new token came out, 0 inside a prompt.
    times : int64 [tokens, 5]
        Ticks by `Category`.
    stages : int64 [7]
        Ticks by stage of all tokens; the last is what follows the layers.
    busy : int64 [5]
        Ticks of use: a column link to row 0, a row link, the busiest wires, all attention lanes, HBM.
    """

    sequence: Ints
    begin: Ints
    end: Ints
    generated: Ints
    times: Ints
    stages: Ints
    busy: Ints


def encode(operations: tuple[Operation, ...], machine: SystemMachine) -> Ints:
    """Return operations as rows of numbers; collectives in a row that nobody waits for become one.

    With static shares a link is never busy with another token, so a chain of collectives is a fixed time.
    """
    rows: list[list[int]] = []
    for operation in operations:
        row = [int(getattr(operation, name)) for name in _COLUMNS]
        if is_static(machine) and operation.kind is Kind.LINK:
            row[0] = _FIXED
            row[6] = max(operation.column + operation.extra, operation.row) + machine.latency_ticks
            if rows and rows[-1][0] == _FIXED and rows[-1][8] == row[8]:
                rows[-1] = [*row[:2], *(a + b for a, b in zip(rows[-1][2:7], row[2:7], strict=True)),
                            *row[7:]]  # fmt: skip
                continue
        rows.append(row)
    return np.array(rows, np.int64)


def turn_tables(model: SystemModel, machine: SystemMachine) -> Ints:
    """Return the layer's operations for 1, 2, ... experts on the busiest chip."""
    most = 1 if machine.even_routing else model.experts_per_token
    return np.stack([
        encode(layer_operations(model, machine, turns + 1), machine) for turns in range(most)
    ])


def collision_odds(model: SystemModel, machine: SystemMachine) -> npt.NDArray[np.float64]:
    """Return the cumulative odds that the busiest chip has 1, 2, ... of a token's experts.

    Experts are drawn evenly; drawn with a fixed seed, because a closed form is longer than it is worth.
    """
    if machine.even_routing:
        return np.ones(1)
    rng = np.random.default_rng(0)
    draws = rng.random((20_000, model.experts)).argpartition(model.experts_per_token, axis=1)
    chips = draws[:, : model.experts_per_token] * machine.chips // model.experts
    most = np.array([np.bincount(row).max() for row in chips])
    counts = np.bincount(most, minlength=model.experts_per_token + 1)[1:]
    return np.cumsum(counts) / counts.sum()


def resident_bytes(model: SystemModel, machine: SystemMachine) -> tuple[int, int]:
    """Buffer bytes of a chip that one sequence has for a windowed and for a full layer.

    Windows come first, because they are used again and again; full layers share the rest evenly.
    """
    tokens, windowed = machine.in_flight(model.layers), sum(model.windowed)
    window = attention_cost(model, machine).bytes(model.window)
    if tokens * windowed * window > machine.buffer_bytes:
        return machine.buffer_bytes // (tokens * windowed), 0
    rest = machine.buffer_bytes - tokens * windowed * window
    return window, rest // (tokens * max(1, model.full_layers))


def sequence_limit(model: SystemModel, machine: SystemMachine, positions: int) -> int:
    """Sequences of so many positions whose keys and values a chip's buffer and HBM hold together."""
    cost = attention_cost(model, machine)
    one = sum(cost.bytes(model.attended(n, positions)) for n in range(model.layers))
    return (machine.buffer_bytes + machine.hbm_bytes) // one


def run(
    model: SystemModel, machine: SystemMachine, requests: Requests, most_tokens: int, seed: int = 0
) -> Served:
    """Serve sequences until all are done or `most_tokens` tokens have ended.

    No more sequences are in work than keys and values have room for, each at its final length.

    Raises
    ------
    InputError
        If the model does not divide among the chips, or the longest sequence has no room.
    """
    model.check_grid(machine.rows, machine.columns)
    cost = attention_cost(model, machine)
    longest = int((requests.position + requests.prompt + requests.output).max())
    room = sequence_limit(model, machine, longest)
    if room < 1:
        raise InputError(
            f"{model.name}: context: expected what {machine.hbm_bytes:,} bytes of HBM a chip hold, "
            f"found a sequence of {longest:,} positions"
        )
    slots = machine.in_flight(model.layers)
    result = _serve(
        turn_tables(model, machine),
        encode(head_operations(model, machine), machine),
        collision_odds(model, machine),
        np.array(model.windowed),
        model.window,
        np.array(dataclasses.astuple(cost), np.int64),
        np.array(resident_bytes(model, machine), np.int64),
        requests.prompt,
        requests.output,
        requests.arrival,
        requests.position,
        requests.frozen,
        slots,
        room,
        machine.rows,
        machine.latency_ticks,
        min(machine.lanes(model.layers), slots),
        machine.hbm_shared,
        RETRY_CYCLES * machine.ticks_per_cycle,
        most_tokens,
        seed,
    )
    return Served(*result)


@numba.njit(cache=True)
def _earlier(times: Ints, a: int, b: int) -> bool:
    return times[a] < times[b] or (times[a] == times[b] and a < b)


@numba.njit(cache=True)
def _push(heap: Ints, size: int, times: Ints, slot: int) -> int:
    place = size
    while place > 0:
        parent = (place - 1) >> 1
        if not _earlier(times, slot, heap[parent]):
            break
        heap[place] = heap[parent]
        place = parent
    heap[place] = slot
    return size + 1


@numba.njit(cache=True)
def _sink(heap: Ints, size: int, times: Ints, slot: int) -> None:
    """Put `slot` at the root of a heap of this size, and let it sink to its place."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and _earlier(times, heap[child + 1], heap[child]):
            child += 1
        if not _earlier(times, heap[child], slot):
            break
        heap[place] = heap[child]
        place = child
    heap[place] = slot


@numba.njit(cache=True)
def _serve(
    tables: Ints,
    head: Ints,
    odds: npt.NDArray[np.float64],
    windowed: npt.NDArray[np.bool_],
    window: int,
    cost: Ints,
    resident: Ints,
    prompt: Ints,
    output: Ints,
    arrival: Ints,
    first_position: Ints,
    frozen: bool,
    slots: int,
    room: int,
    rows: int,
    latency: int,
    lanes: int,
    hbm_shared: bool,
    retry: int,
    most_tokens: int,
    seed: int,
) -> tuple[Ints, Ints, Ints, Ints, Ints, Ints, Ints]:
    """See `run`; the loop over events."""
    np.random.seed(seed)
    layers, sequences = len(windowed), len(prompt)
    heads, share, dots, cycle, position_bytes, numerator, denominator = cost
    # Per sequence: positions that have entered; how many are in the first n layers' keys and values.
    entered, done = first_position.copy(), np.zeros(sequences, np.int64)
    kept = np.empty((sequences, layers), np.int64)
    for q in range(sequences):
        kept[q, :] = first_position[q]
    # Per position of the pipeline.
    times = np.zeros(slots, np.int64)
    sequence, place = np.full(slots, -1, np.int64), np.zeros(slots, np.int64)
    layer, step, turns = np.zeros((3, slots), np.int64)
    fetched, begun = np.zeros(slots, np.int64), np.zeros(slots, np.int64)
    spent = np.zeros((slots, 5), np.int64)
    # Resources: when each is free.
    column, row_free, hbm_free = np.zeros(rows, np.int64), 0, 0
    wires, vector = np.zeros((layers + 1, 4), np.int64), np.zeros(layers + 1, np.int64)
    lane = np.zeros(lanes, np.int64)
    out_sequence, out_begin, out_end, out_new = np.zeros((4, most_tokens), np.int64)
    out_times = np.zeros((most_tokens, 5), np.int64)
    stage_times, busy = np.zeros(STAGES, np.int64), np.zeros(5, np.int64)
    heap, size, ended = np.zeros(slots, np.int64), 0, 0
    for slot in range(slots):
        size = _push(heap, size, times, slot)
    parked, parked_count = np.zeros(slots, np.int64), 0
    oldest, admitted, active = 0, 0, 0

    while size > 0 and ended < most_tokens:
        slot = heap[0]
        now = times[slot]
        if sequence[slot] < 0:
            # A free position takes the next token of a prompt, or admits a sequence.
            while oldest < admitted and entered[oldest] >= first_position[oldest] + prompt[oldest]:
                oldest += 1
            if oldest == admitted:
                if admitted == sequences or active == room:
                    parked[parked_count] = slot
                    parked_count += 1
                    size -= 1
                    if size > 0:
                        _sink(heap, size, times, heap[size])
                    continue
                if arrival[admitted] > now:
                    times[slot] = arrival[admitted]
                    _sink(heap, size, times, slot)
                    continue
                admitted += 1
                active += 1
            q = oldest
            sequence[slot], place[slot] = q, entered[q]
            entered[q] += 1
            layer[slot], step[slot], turns[slot] = 0, 0, np.searchsorted(odds, np.random.random())
            fetched[slot], begun[slot] = _ASK, now
            spent[slot, :] = 0
        q, level = sequence[slot], layer[slot]
        if fetched[slot] == _ASK:
            # Keys and values of a layer are asked for when the attention before it is over.
            coming = 0 if level == 0 and step[slot] == 0 else level + 1
            fetched[slot] = now
            if coming < layers:
                attended, keep = place[slot] + 1, resident[1]
                if windowed[coming]:
                    attended, keep = min(attended, window), resident[0]
                missing = max(0, position_bytes * ((attended + share - 1) // share) - keep)
                ticks = (missing * numerator + denominator - 1) // denominator
                start = max(now, hbm_free) if hbm_shared else now
                fetched[slot] = start + ticks
                if hbm_shared:
                    hbm_free = start + ticks
                busy[4] += ticks
        operation = tables[turns[slot], step[slot]] if level < layers else head[step[slot]]
        kind, end = operation[0], now
        if kind == _FIXED:
            end = now + operation[6]
            busy[0] += operation[2]
            busy[1] += operation[3]
        elif kind == _LINK:
            keeper = (place[slot] + (done[q] if frozen else 0)) % rows
            for to in range(rows):
                ticks = operation[2] + (operation[4] if to == keeper else 0)
                if ticks > 0:
                    start = max(now, column[to])
                    column[to] = start + ticks
                    end = max(end, start + ticks)
                    if to == 0:
                        busy[0] += ticks
            if operation[3] > 0:
                start = max(now, row_free)
                row_free = start + operation[3]
                end = max(end, row_free)
                busy[1] += operation[3]
            end += latency
        elif kind == _WIRES:
            start = max(now, wires[level, operation[7]])
            wires[level, operation[7]] = start + operation[5]
            end = start + operation[6]
            if level == 0 and operation[7] == 2:
                busy[2] += operation[5]
        elif kind == _VECTOR:
            start = max(now, vector[level])
            vector[level] = start + operation[5]
            end = start + operation[6]
        else:
            if kept[q, level] < place[slot] and not frozen:
                # The position before this one is not there yet.
                spent[slot, _STALL] += retry
                times[slot] = now + retry
                _sink(heap, size, times, slot)
                continue
            attended = place[slot] + 1
            if windowed[level]:
                attended = min(attended, window)
            ticks = (heads * ((attended + share - 1) // share) + dots - 1) // dots * cycle
            if fetched[slot] - ticks > now:
                # A lane is asked for when the data keep up with it to the end.
                spent[slot, _STALL] += fetched[slot] - ticks - now
                stage_times[operation[8]] += fetched[slot] - ticks - now
                times[slot] = fetched[slot] - ticks
                _sink(heap, size, times, slot)
                continue
            kept[q, level] = place[slot] + 1
            free = np.argmin(lane) if lanes < slots else slot
            end = max(now, lane[free]) + ticks
            lane[free] = end
            busy[3] += ticks
            fetched[slot] = _ASK
        spent[slot, operation[1]] += end - now
        stage_times[operation[8]] += end - now
        step[slot] += 1
        if step[slot] == (tables.shape[1] if level < layers else len(head)):
            step[slot] = 0
            layer[slot] += 1
            if layer[slot] < layers:
                turns[slot] = np.searchsorted(odds, np.random.random())
            elif layer[slot] > layers:
                new = place[slot] + 1 >= first_position[q] + prompt[q]
                out_sequence[ended], out_begin[ended], out_end[ended] = q, begun[slot], end
                out_new[ended] = new
                out_times[ended, :] = spent[slot, :]
                ended += 1
                sequence[slot] = -1
                if new:
                    done[q] += 1
                    if done[q] < output[q]:
                        # The sequence goes on in the same position of the pipeline.
                        sequence[slot] = q
                        if not frozen:
                            place[slot] += 1
                        layer[slot], begun[slot] = 0, end
                        turns[slot] = np.searchsorted(odds, np.random.random())
                        fetched[slot] = _ASK
                        spent[slot, :] = 0
                    else:
                        active -= 1
                        for waiting in range(parked_count):
                            times[parked[waiting]] = end
                            size = _push(heap, size, times, parked[waiting])
                        parked_count = 0
        times[slot] = end
        _sink(heap, size, times, slot)
    return (
        out_sequence[:ended],
        out_begin[:ended],
        out_end[:ended],
        out_new[:ended],
        out_times[:ended],
        stage_times,
        busy,
    )
