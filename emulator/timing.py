"""The timing engine: when every instruction issues and ends, to the cycle, without computing a value.

Units other than LD and ST depend only on tokens and on their own length, so they advance as soon as their tokens'
times are known. LD and ST also meet at the memory, which takes bursts in order of time: their bursts are
processed one by one, earliest first, and only when nothing else can advance; then no burst that is still
unknown can be earlier, because it would have to wait for one of these.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from hw.spec import latency
from hw.spec.instructions import SEMAPHORE_BITS, Pattern, Unit
from hw.spec.machine import MachineSpec
from hw.spec.program import Program

from emulator import sequencer as seq
from emulator.errors import IllegalProgram
from emulator.memory import LAST_ACCEPT, accept_read, accept_write, beat_cycle, memory_state, refresh_until

_LD, _ST, _MPE, _SFU, _SYS = (int(u) for u in Unit)
_UNITS = len(Unit)
_TOKENS = 1 << SEMAPHORE_BITS
_CHUNK = 512

# Constants of a machine, one vector.
_MATRIX_LATENCY, _DRAIN, _VECTOR_LATENCY, _GRANULE, _GRANULE_BEATS, _BURST, _READS, _WRITES = range(8)
_FETCH, _EVALUATE = latency.FETCH_CYCLES, latency.EVALUATE_CYCLES
_CONTROL, _LOAD, _STORE = latency.CONTROL_CYCLES, latency.LOAD_CYCLES, latency.STORE_CYCLES
_TOKEN = latency.TOKEN_CYCLES

# Columns of a unit's progress.
_FETCH_AT, _READY, _LAST_END, _BUSY, _WAITED, _HALT_AT, _TAKEN, _ISSUE, _RECORDED, _BURSTS = range(10)
# Columns of a transfer under way in LD or ST.
_ACTIVE, _ADDRESS, _LEFT, _RANDOM, _REQUEST, _ROWS, _PITCH, _ROW_WORDS, _RESPONSE, _WAIT_FROM, _ROW_ADDRESS = range(11)

DONE, DEADLOCK, OVERFLOW, RECORDS_FULL, BAD_PROGRAM = range(5)

RECORD_COLUMNS = 5
"""Of an instruction: pc, first cycle in which tokens could be taken, cycle in which they were, issue, end."""
BURST_COLUMNS = 6
"""Of a burst: cycle of acceptance, of the first beat, of the last beat (or response), word, beats, 1 for a write."""


@dataclass(frozen=True)
class TimingResult:
    """Cycle counts of a run.

    Attributes
    ----------
    cycles : int
        Cycle in which `done` rises; cycle 0 is the one that accepts start.
    records : dict of Unit to int64 [instructions, RECORD_COLUMNS]
        Empty unless asked for.
    bursts : int64 [bursts, BURST_COLUMNS]
        Empty unless asked for.
    busy, waited : dict of Unit to int
        Cycles between issue and end of any instruction; cycles waiting for tokens.
    bytes_read, bytes_written : int
        Of each channel.
    """

    cycles: int
    records: dict[Unit, np.ndarray]
    bursts: np.ndarray
    busy: dict[Unit, int]
    waited: dict[Unit, int]
    bytes_read: int
    bytes_written: int


def _constants(spec: MachineSpec) -> np.ndarray:
    return np.array(
        [
            latency.matrix_latency(spec),
            spec.drain_cycles,
            latency.vector_latency(spec),
            spec.granule,
            spec.granule // spec.lanes,
            spec.burst_beats,
            spec.read_outstanding,
            spec.write_outstanding,
        ],
        np.int64,
    )


def _fixed_fields(unit: Unit, code: seq.UnitCode) -> np.ndarray:
    """Fields that timing needs and that no register changes: rows, pitch, words a row, random."""
    fixed = np.zeros((max(1, len(code.fields)), 4), np.int64)
    for pc, fields in enumerate(code.fields):
        words = 1
        if fields.get("pattern") == Pattern.COLUMN:
            words = 2 * fields.get("steps", 0)
        elif fields.get("pattern") == Pattern.SPREAD:
            words = 2
        fixed[pc] = [fields.get("rows", 0), fields.get("pitch", 0), words, fields.get("random", 0)]
    return fixed


class TimingEngine:
    """Cycle counts of one program on its machine.

    Parameters
    ----------
    program : Program
        Only instructions and machine are used.
    """

    def __init__(self, program: Program) -> None:
        self.spec = program.machine
        self.codes = {unit: seq.decode_unit(unit, program.instructions.get(unit, [])) for unit in Unit}
        self.tables = tuple(code.table for code in self.codes.values())
        self.fixed = tuple(_fixed_fields(unit, code) for unit, code in self.codes.items())

    def run(self, prompt_length: int, tokens: int, record: bool = False, end_position: int | None = None) -> TimingResult:
        """Time a run that generates `tokens` tokens behind a prompt of `prompt_length`.

        `end_position` is the POSITION at which SYS sets END; by default the last one (no early stop).

        Raises
        ------
        IllegalProgram
            If the program deadlocks, overflows a token counter, or runs past its instructions.
        """
        steps = prompt_length + tokens - 1
        end = steps if end_position is None else end_position
        room = 1 << 12 if record else 0
        while True:
            result = self._run(prompt_length, steps, end, room)
            if result is not None:
                return result
            room *= 4

    def _run(self, prompt_length: int, steps: int, end: int, room: int) -> TimingResult | None:
        records = np.zeros((_UNITS, max(1, room), RECORD_COLUMNS), np.int64)
        bursts = np.zeros((max(1, 4 * room), BURST_COLUMNS), np.int64)
        progress = np.zeros((_UNITS, 10), np.int64)
        transfers = np.zeros((2, 11), np.int64)
        totals = np.zeros(4, np.int64)
        status = _run_engine(
            self.tables,
            self.fixed,
            _constants(self.spec),
            memory_state(self.spec.memory),
            prompt_length,
            steps,
            end,
            records,
            bursts,
            room,
            progress,
            transfers,
            totals,
        )
        if status == RECORDS_FULL:
            return None
        if status != DONE:
            reason = {DEADLOCK: "deadlock", OVERFLOW: "token overflow"}.get(status, "runs past its instructions")
            where = ", ".join(f"{u.name} behind cycle {progress[u, _ISSUE]}" for u in Unit)
            raise IllegalProgram(f"{reason}: {where}")
        ends = max(int(progress[u, _LAST_END]) for u in Unit)
        halts = max(int(progress[u, _HALT_AT]) for u in Unit)
        kept = {u: records[u, : progress[u, _RECORDED]].copy() if room else records[u, :0] for u in Unit}
        beats = self.spec.bus_bytes
        return TimingResult(
            max(ends, halts) + 1,
            kept,
            bursts[: totals[2]].copy() if room else bursts[:0],
            {u: int(progress[u, _BUSY]) for u in Unit},
            {u: int(progress[u, _WAITED]) for u in Unit},
            int(totals[0]) * beats,
            int(totals[1]) * beats,
        )


@njit(cache=True)
def _retire(unit, pc, wait_from, taken, issue, end, signals, progress, times, tails, heads, records, room):  # type: ignore[no-untyped-def]  # compiled
    """Note the end of an instruction and send its tokens; status."""
    line = progress[unit]
    line[_BUSY] += end - max(issue, line[_LAST_END])
    line[_LAST_END] = max(end, line[_LAST_END])
    if room > 0:
        at = line[_RECORDED]
        if at == room:
            return RECORDS_FULL
        record = records[unit, at]
        record[0], record[1], record[2], record[3], record[4] = pc, wait_from, taken, issue, end
    line[_RECORDED] += 1
    for taker in range(_UNITS):
        if signals >> taker & 1:
            if tails[unit, taker] - heads[unit, taker] >= _TOKENS:
                return OVERFLOW
            times[unit, taker, tails[unit, taker] % _TOKENS] = end + 1
            tails[unit, taker] += 1
    return DONE


@njit(cache=True)
def _take_tokens(unit, wait, wait_from, times, tails, heads):  # type: ignore[no-untyped-def]  # compiled
    """Cycle in which the tokens of `wait` are taken, or -1 if some are not known yet."""
    taken = wait_from
    for giver in range(_UNITS):
        if wait >> giver & 1:
            if tails[giver, unit] == heads[giver, unit]:
                return -1
            taken = max(taken, times[giver, unit, heads[giver, unit] % _TOKENS])
    for giver in range(_UNITS):
        if wait >> giver & 1:
            heads[giver, unit] += 1
    return taken


@njit(cache=True)
def _duration(unit, entry, fixed, constants):  # type: ignore[no-untyped-def]  # compiled
    if unit == _MPE:
        drain = constants[_DRAIN]
        blocks, steps = entry[seq.COUNTS], entry[seq.COUNTS + 1]
        return constants[_MATRIX_LATENCY] + blocks * max(steps, drain) + drain
    if unit == _SFU:
        granules = -(-entry[seq.COUNTS] // constants[_GRANULE])
        return constants[_VECTOR_LATENCY] + fixed[0] * granules * constants[_GRANULE_BEATS]
    return _TOKEN


@njit(cache=True)
def _run_engine(  # type: ignore[no-untyped-def]  # compiled
    tables, fixed, constants, memory, prompt_length, steps, end, records, bursts, room, progress, transfers, totals
):
    states = np.zeros((_UNITS, seq._STATE_COLUMNS), np.int64)
    entries = np.zeros((_UNITS, _CHUNK, seq.ENTRY_COLUMNS), np.int64)
    counts = np.zeros(_UNITS, np.int64)
    at = np.zeros(_UNITS, np.int64)
    status = np.zeros(_UNITS, np.int64)
    times = np.zeros((_UNITS, _UNITS, _TOKENS), np.int64)
    heads = np.zeros((_UNITS, _UNITS), np.int64)
    tails = np.zeros((_UNITS, _UNITS), np.int64)
    completions = np.zeros((2, 256), np.int64)
    progress[:, _FETCH_AT] = 1
    progress[:, _LAST_END] = 0
    while True:
        moved = False
        for unit in range(_UNITS):
            while True:
                if unit <= _ST and transfers[unit, _ACTIVE]:
                    break
                if at[unit] == counts[unit]:
                    if status[unit] != seq.RUNNING:
                        break
                    counts[unit], status[unit] = seq.expand(
                        tables[unit], states[unit], prompt_length, steps, end, entries[unit]
                    )
                    at[unit] = 0
                    if status[unit] == seq.HALTED and counts[unit] == 0:
                        controls = states[unit, seq._CONTROLS]
                        progress[unit, _HALT_AT] = progress[unit, _FETCH_AT] + _CONTROL * controls + _CONTROL - 1
                    continue
                entry = entries[unit, at[unit]]
                row = tables[unit][entry[seq.PC]]
                wait_from = progress[unit, _FETCH_AT] + _CONTROL * entry[seq.CONTROLS] + _FETCH
                taken = _take_tokens(unit, row[seq.WAIT], wait_from, times, tails, heads)
                if taken < 0:
                    break
                moved = True
                at[unit] += 1
                issue = max(taken + _EVALUATE + 1, progress[unit, _READY])
                line = progress[unit]
                line[_WAITED] += taken - wait_from
                line[_TAKEN], line[_ISSUE], line[_FETCH_AT] = taken, issue, issue + 1
                static = fixed[unit][entry[seq.PC]]
                if row[seq.OPCODE] == seq._SYNC:
                    ended = issue + 1
                    if unit == _LD:
                        ended = max(ended, line[_LAST_END] + 1)
                        line[_READY] = issue + 1
                    else:
                        line[_READY] = ended + 1
                elif unit <= _ST:
                    transfer = transfers[unit]
                    transfer[_ACTIVE] = 1
                    transfer[_ADDRESS] = transfer[_ROW_ADDRESS] = entry[seq.WORD]
                    transfer[_LEFT] = entry[seq.COUNTS] if unit == _LD else static[2]
                    transfer[_RANDOM] = static[3]
                    transfer[_REQUEST] = issue + 1 if unit == _LD else issue + _STORE
                    transfer[_ROWS] = 1 if unit == _LD else static[0]
                    transfer[_PITCH], transfer[_ROW_WORDS] = static[1], static[2]
                    transfer[_WAIT_FROM] = wait_from
                    continue
                else:
                    ended = issue + _duration(unit, entry, static, constants)
                    line[_READY] = ended + 1
                code = _retire(
                    unit, entry[seq.PC], wait_from, taken, issue, ended, row[seq.SIGNAL],
                    progress, times, tails, heads, records, room,
                )  # fmt: skip
                if code != DONE:
                    return code
        if moved:
            continue
        # Nothing moves without the memory: the earliest burst goes next, a write first on a tie.
        best = -1
        best_cycle = 0
        for unit in (_ST, _LD):
            if transfers[unit, _ACTIVE]:
                cycle = transfers[unit, _REQUEST]
                limit = constants[_READS] if unit == _LD else constants[_WRITES]
                number = progress[unit, _BURSTS]
                if number >= limit:
                    cycle = max(cycle, completions[unit, (number - limit) % 256] + 1)
                cycle = max(cycle, memory[LAST_ACCEPT] + 1)
                if best < 0 or cycle < best_cycle:
                    best, best_cycle = unit, cycle
        if best < 0:
            for unit in range(_UNITS):
                if status[unit] != seq.HALTED or at[unit] < counts[unit]:
                    return BAD_PROGRAM if status[unit] > seq.HALTED else DEADLOCK
            return DONE
        accepted = refresh_until(memory, best_cycle)
        if accepted != best_cycle:
            transfers[best, _REQUEST] = accepted
            continue
        finished = _burst(best, accepted, constants, memory, progress, transfers, completions, bursts, room, totals)
        if finished == 0:
            continue
        if finished < 0:
            return RECORDS_FULL
        transfers[best, _ACTIVE] = 0
        entry = entries[best, at[best] - 1]
        code = _retire(
            best, entry[seq.PC], transfers[best, _WAIT_FROM], progress[best, _TAKEN], progress[best, _ISSUE], finished,
            tables[best][entry[seq.PC], seq.SIGNAL], progress, times, tails, heads, records, room,
        )  # fmt: skip
        if code != DONE:
            return code


@njit(cache=True)
def _burst(unit, accepted, constants, memory, progress, transfers, completions, bursts, room, totals):  # type: ignore[no-untyped-def]  # compiled
    """Transfer one burst; the end cycle of the instruction if it was its last, 0 if not, -1 if records are full."""
    transfer = transfers[unit]
    address = transfer[_ADDRESS]
    beats = min(transfer[_LEFT], constants[_BURST] - address % constants[_BURST])
    if unit == _LD:
        complete = accept_read(memory, accepted, address, beats, transfer[_RANDOM])
        totals[0] += beats
        transfer[_REQUEST] = accepted + 1
    else:
        complete = accept_write(memory, accepted, address, beats)
        totals[1] += beats
        transfer[_REQUEST] = accepted + beats + 1
    completions[unit, progress[unit, _BURSTS] % 256] = complete
    progress[unit, _BURSTS] += 1
    if room > 0:
        if totals[2] == bursts.shape[0]:
            return -1
        record = bursts[totals[2]]
        record[0], record[1], record[2] = accepted, beat_cycle(memory, 0), complete
        record[3], record[4], record[5] = address, beats, int(unit == _ST)
        totals[2] += 1
    transfer[_ADDRESS] += beats
    transfer[_LEFT] -= beats
    if transfer[_LEFT] > 0:
        return 0
    transfer[_ROWS] -= 1
    if transfer[_ROWS] > 0:
        transfer[_ROW_ADDRESS] += transfer[_PITCH]
        transfer[_ADDRESS] = transfer[_ROW_ADDRESS]
        transfer[_LEFT] = transfer[_ROW_WORDS]
        return 0
    if unit == _LD:
        progress[unit, _READY] = accepted + 1
        return complete + _LOAD
    progress[unit, _READY] = complete + 2
    return complete + 1
