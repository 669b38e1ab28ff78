"""The timing engine: when every instruction issues and ends, to the cycle, without computing a value."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emulator import sequencer as seq
from emulator import timing_layout as layout
from emulator.decode import WAIT, UnitCode, decode_unit
from emulator.errors import IllegalProgram
from emulator.memory import memory_state
from emulator.timing_engine import run_engine
from emulator.timing_layout import (
    BURST_ACCEPTED,
    BURST_BEATS,
    BURST_COLUMNS,
    BURST_COMPLETE,
    BURST_FIRST,
    BURST_IS_WRITE,
    BURST_LAST,
    BURST_WORD,
    RECORD_COLUMNS,
    RECORD_END,
    RECORD_INDEX,
    RECORD_ISSUE,
    RECORD_PC,
    RECORD_TAKEN,
    RECORD_WAIT_FROM,
)
from hw.spec import latency
from hw.spec.instructions import Pattern, Unit
from hw.spec.machine import MachineSpec
from hw.spec.program import Program
from hw.spec.weight_format import WIRES

__all__ = [
    "BURST_ACCEPTED",
    "BURST_BEATS",
    "BURST_COLUMNS",
    "BURST_COMPLETE",
    "BURST_FIRST",
    "BURST_IS_WRITE",
    "BURST_LAST",
    "BURST_WORD",
    "RECORD_COLUMNS",
    "RECORD_END",
    "RECORD_INDEX",
    "RECORD_ISSUE",
    "RECORD_PC",
    "RECORD_TAKEN",
    "RECORD_WAIT_FROM",
    "TimingEngine",
    "TimingResult",
]

Table = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TimingResult:
    """Cycle counts of a run.

    Attributes
    ----------
    cycles : int
        Cycle in which `done` rises; cycle 0 is the one that accepts start.
    records : dict of Unit to int64 [instructions, RECORD_COLUMNS]
        One row for each instruction in order, empty unless asked for. Columns: RECORD_PC; RECORD_WAIT_FROM, first
        cycle in which tokens could be taken; RECORD_TAKEN, cycle in which they were; RECORD_ISSUE; RECORD_END;
        RECORD_INDEX and the three behind it, the loop indices.
    bursts : int64 [bursts, BURST_COLUMNS]
        In order of acceptance, empty unless asked for. Columns: BURST_ACCEPTED, cycle; BURST_FIRST, BURST_LAST,
        cycles of the first and last beat on the bus; BURST_COMPLETE, cycle of the last beat of a read, or of the
        response to a write; BURST_WORD, address; BURST_BEATS; BURST_IS_WRITE, 1 for a write.
    busy, waited, stalled : dict of Unit to int
        Cycles between issue and end of any instruction; cycles waiting for tokens; those of the latter in which the
        unit executed nothing.
    bytes_read, bytes_written : int
        Of each channel.
    instructions : dict of Unit to int
        Unit instructions that ended.
    """

    cycles: int
    records: dict[Unit, Table]
    bursts: Table
    busy: dict[Unit, int]
    waited: dict[Unit, int]
    stalled: dict[Unit, int]
    bytes_read: int
    bytes_written: int
    instructions: dict[Unit, int]


class TimingEngine:
    """Cycle counts of one program on its machine.

    Parameters
    ----------
    program : Program
        Only instructions and machine are used.
    """

    def __init__(self, program: Program) -> None:
        self.spec = program.machine
        words = program.instructions
        self.codes = {unit: decode_unit(unit, words.get(unit, [])) for unit in Unit}
        sizes = [len(code.table) for code in self.codes.values()]
        self._first = [0, *np.cumsum(sizes).tolist()]
        self._code = np.concatenate([_with_fixed_values(code) for code in self.codes.values()])
        self._constants = _constants(self.spec)
        self._leads = _wired_leads(self.spec)

    def run(
        self, prompt_length: int, tokens: int, record: bool = False, end_position: int | None = None
    ) -> TimingResult:
        """Time a run that generates `tokens` tokens behind a prompt of `prompt_length`.

        `end_position` is the POSITION at which SYS sets END; by default the last one (no early stop).

        Raises
        ------
        IllegalProgram
            If the program deadlocks, overflows a token counter, has a count of zero, or runs past its instructions.
        """
        steps = prompt_length + tokens - 1
        host = [prompt_length, steps, steps if end_position is None else end_position]
        run = self._finish(host, [0] * len(Unit), 0)
        if record:
            # Only now is it known how many records there are.
            run = self._finish(
                host, run.units[:, layout.RETIRED].tolist(), run.totals[layout.ALL_BURSTS]
            )
        return self._result(run)

    def _finish(self, host: list[int], records: list[int], bursts: int) -> layout.Run:
        """Run with room for so many records of each unit and so many bursts."""
        units = np.zeros((layout.UNITS, layout.UNIT_COLUMNS), np.int64)
        units[:, layout.FETCH] = 1
        units[:, layout.FIRST_RECORD] = np.cumsum(records) - records
        run = layout.Run(
            code=self._code,
            parameters=np.array([*self._constants, *host, *self._first, *self._leads], np.int64),
            memory=memory_state(self.spec.memory),
            units=units,
            sequencers=np.zeros((layout.UNITS, seq.STATE_COLUMNS), np.int64),
            entries=np.zeros((layout.UNITS, layout.CHUNK, seq.ENTRY_COLUMNS), np.int64),
            tokens=np.zeros((layout.UNITS, layout.UNITS, layout.COUNTER_COLUMNS), np.int64),
            completions=np.zeros((2, layout.COMPLETIONS), np.int64),
            records=np.zeros((sum(records), RECORD_COLUMNS), np.int64),
            bursts=np.zeros((bursts, BURST_COLUMNS), np.int64),
            totals=np.zeros(4, np.int64),
        )
        status = run_engine(run)
        if status != layout.DONE:
            raise IllegalProgram(self._complaint(run, status))
        return run

    def _result(self, run: layout.Run) -> TimingResult:
        last = max(run.units[:, layout.LAST_END].max(), run.units[:, layout.HALTED_AT].max())
        first, count = run.units[:, layout.FIRST_RECORD], run.units[:, layout.RETIRED]
        column = {unit: run.units[unit] for unit in Unit}
        return TimingResult(
            cycles=int(last) + 1,
            records={unit: run.records[first[unit] :][: count[unit]] for unit in Unit},
            bursts=run.bursts,
            busy={unit: int(line[layout.BUSY]) for unit, line in column.items()},
            waited={unit: int(line[layout.WAITED]) for unit, line in column.items()},
            stalled={unit: int(line[layout.STALLED]) for unit, line in column.items()},
            bytes_read=int(run.totals[layout.BEATS_READ]) * self.spec.bus_bytes,
            bytes_written=int(run.totals[layout.BEATS_WRITTEN]) * self.spec.bus_bytes,
            instructions={unit: int(line[layout.RETIRED]) for unit, line in column.items()},
        )

    def _complaint(self, run: layout.Run, status: int) -> str:
        """What was wrong with the program, and where."""
        if status == layout.DEADLOCK:
            return "deadlock: " + "; ".join(
                filter(None, (self._blocked(run, unit) for unit in Unit))
            )
        faulty = Unit(int(run.totals[layout.FAULTY_UNIT]))
        line = run.units[faulty]
        if status == layout.BAD_PROGRAM:
            pc = run.sequencers[faulty, seq.STATE_PC]
            return f"{faulty.name} at {pc} {seq.BAD[int(line[layout.STATUS])]}"
        at = max(0, int(line[layout.AT]) - 1)
        what = "token overflow" if status == layout.OVERFLOW else "a count of zero"
        return f"{faulty.name} at {run.entries[faulty, at, seq.PC]}: behind cycle {line[layout.ISSUE]}: {what}"

    def _blocked(self, run: layout.Run, unit: Unit) -> str:
        """What the unit waits for; nothing if it has halted."""
        line = run.units[unit]
        if line[layout.AT] == line[layout.COUNT]:
            return ""
        pc = int(run.entries[unit, line[layout.AT], seq.PC])
        mask = self.codes[unit].table[pc, WAIT]
        counters = run.tokens[:, unit]
        missing = [
            giver.name
            for giver in Unit
            if mask >> giver & 1 and counters[giver, layout.HEAD] == counters[giver, layout.TAIL]
        ]
        return f"{unit.name} at {pc} waits for {', '.join(missing)}"


def _constants(spec: MachineSpec) -> list[int]:
    """Those parameters of the engine that belong to the machine, in its order."""
    return [
        latency.matrix_latency(spec),
        spec.drain_cycles,
        latency.vector_latency(spec),
        spec.granule,
        spec.granule // spec.lanes,
        spec.burst_beats,
        spec.read_outstanding,
        spec.write_outstanding,
        spec.matrix_columns,
        spec.exchange_latency,
        spec.cores,
        latency.token_cycles(spec),
    ]


def _wired_leads(spec: MachineSpec) -> list[int]:
    """For each hardwired matrix what its products take longer than those of one step, from number 0, which is none."""
    return [0, *(latency.wired_lead_cycles(spec, m.inputs) for m in spec.wired_matrices)]


def _with_fixed_values(code: UnitCode) -> Table:
    """The unit's table with the engine's own columns: fields that no register changes."""
    table = np.zeros((len(code.fields), layout.CODE_COLUMNS), np.int64)
    table[:, : code.table.shape[1]] = code.table
    for row, fields in zip(table, code.fields, strict=True):
        words = 1
        if fields.get("pattern") == Pattern.COLUMN:
            words = 2 * fields.get("steps", 0)
        elif fields.get("pattern") == Pattern.SPREAD:
            words = 2
        row[layout.ROWS] = fields.get("rows", 0)
        row[layout.PITCH] = fields.get("pitch", 0)
        row[layout.ROW_WORDS] = words
        row[layout.RANDOM] = fields.get("random", 0)
        # A step with metadata takes two cycles; a hardwired matrix has none.
        row[layout.STEP_CYCLES] = 2 if fields.get("kept") else int(fields.get("format") != WIRES)
        row[layout.CAUSAL] = fields.get("causal", 0)
        row[layout.EXCHANGE] = fields.get("exchange", 0)
        row[layout.REDUCED] = int(fields.get("reduce", 0) > 0)
    return table
