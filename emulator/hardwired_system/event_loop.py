"""The loop over events, compiled: takes the earliest, gives its token the next operation, puts back when that ends."""

import numba
import numpy as np
import numpy.typing as npt

from emulator.hardwired_system.event_heap import push, sink
from emulator.hardwired_system.operation import STAGES, Category, Kind
from emulator.hardwired_system.operation_tables import FIXED

Ints = npt.NDArray[np.int64]

_ASK = -1
_LINK, _WIRES, _VECTOR = int(Kind.LINK), int(Kind.WIRES), int(Kind.VECTOR)
_STALL = int(Category.STALL)


@numba.njit(cache=True)
def serve(
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
    """Take events until all sequences are done or `most_tokens` tokens have ended; see `engine.run`.

    One long function on purpose: parts that pass their arrays to each other were measured to be five to
    eight times slower, because the compiler counts references to every array at every call.
    """
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
        size = push(heap, size, times, slot)
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
                        sink(heap, size, times, heap[size])
                    continue
                if arrival[admitted] > now:
                    times[slot] = arrival[admitted]
                    sink(heap, size, times, slot)
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
        if kind == FIXED:
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
                sink(heap, size, times, slot)
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
                sink(heap, size, times, slot)
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
                            size = push(heap, size, times, parked[waiting])
                        parked_count = 0
        times[slot] = end
        sink(heap, size, times, slot)
    return (
        out_sequence[:ended],
        out_begin[:ended],
        out_end[:ended],
        out_new[:ended],
        out_times[:ended],
        stage_times,
        busy,
    )
