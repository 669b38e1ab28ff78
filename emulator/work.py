"""What a run spends its cycles on: kinds of work, unit by unit, and the chain of instructions that sets its length."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emulator.decode import decode_unit
from emulator.describe import step_name
from emulator.timing import (
    RECORD_END,
    RECORD_ISSUE,
    RECORD_PC,
    RECORD_TAKEN,
    RECORD_WAIT_FROM,
    TimingResult,
)
from emulator.units.matrix_check import step_format
from emulator.units.wires import is_wired
from hw.spec import latency
from hw.spec.functions import Function
from hw.spec.instructions import Destination, Opcode, Pattern, Reduce, Register, Target, Unit
from hw.spec.program import Program

_ISSUE_CYCLES = latency.EVALUATE_CYCLES + 1
ISSUING = "fetch, loops, tokens"
"""Kind of the cycles between instructions."""


@dataclass(frozen=True)
class Work:
    """One kind of work of one unit.

    Attributes
    ----------
    unit : Unit
    kind : str
    instructions : int
    busy : int
        Cycles in which the unit's oldest unfinished instruction was of this kind.
    waited : int
        Cycles in which instructions of this kind waited for tokens of other units.
    critical : int
        Cycles of this work on the chain that sets the length of the run; over all kinds they add up to the run.
    """

    unit: Unit
    kind: str
    instructions: int
    busy: int
    waited: int
    critical: int


class _Codes:
    """Kind and tokens of every instruction of a program."""

    def __init__(self, program: Program) -> None:
        self.kinds: dict[Unit, list[str]] = {}
        self.waits: dict[Unit, list[int]] = {}
        self.signals: dict[Unit, list[int]] = {}
        for unit in Unit:
            fields = decode_unit(unit, program.instructions.get(unit, [])).fields
            self.kinds[unit] = [kind_of(unit, f, program) for f in fields]
            self.waits[unit] = [f["wait"] for f in fields]
            self.signals[unit] = [f["signal"] for f in fields]


def work_table(program: Program, result: TimingResult) -> list[Work]:
    """Kinds of work of all units, in the order of the units, the longest on the critical chain first.

    Parameters
    ----------
    program : Program
    result : TimingResult
        With records.
    """
    codes = _Codes(program)
    chain = critical_chain(program, result)
    table = []
    for unit in Unit:
        records = result.records[unit]
        rows = []
        kinds = np.array(codes.kinds[unit])[records[:, RECORD_PC]]
        ends = np.maximum.accumulate(records[:, RECORD_END])
        before = np.concatenate([[0], ends[:-1]])
        busy = np.maximum(0, records[:, RECORD_END] - np.maximum(records[:, RECORD_ISSUE], before))
        waited = records[:, RECORD_TAKEN] - records[:, RECORD_WAIT_FROM]
        for kind in dict.fromkeys(kinds.tolist()):
            chosen = kinds == kind
            critical = chain.get((unit, kind), 0)
            counts = int(chosen.sum()), int(busy[chosen].sum()), int(waited[chosen].sum())
            rows.append(Work(unit, kind, *counts, critical))
        if issuing := chain.get((unit, ISSUING), 0):
            rows.append(Work(unit, ISSUING, 0, 0, 0, issuing))
        table += sorted(rows, key=lambda row: -row.critical)
    return table


def waits_for(program: Program, result: TimingResult) -> dict[tuple[Unit, str], int]:
    """Cycles that each unit waited, by the units whose tokens it waited for (`MPE+SFU`: for both)."""
    codes = _Codes(program)
    waited: dict[tuple[Unit, str], int] = {}
    for unit in Unit:
        records = result.records[unit]
        masks = np.array(codes.waits[unit], np.int64)[records[:, RECORD_PC]]
        cycles = records[:, RECORD_TAKEN] - records[:, RECORD_WAIT_FROM]
        for mask in np.unique(masks[cycles > 0]):
            name = "+".join(giver.name for giver in Unit if int(mask) >> giver & 1)
            waited[unit, name] = int(cycles[masks == mask].sum())
    return waited


def critical_chain(program: Program, result: TimingResult) -> dict[tuple[Unit, str], int]:
    """Cycles of each kind of work on the chain of instructions that sets the length of the run.

    The chain is walked from the last end back to cycle 0: an instruction that was issued when its unit became
    ready follows the one before it; one that waited follows the one that gave the last token; any other one
    follows the fetch of its unit. The cycles add up to the run's.
    """
    codes = _Codes(program)
    records = {unit: result.records[unit] for unit in Unit}
    spent: dict[tuple[Unit, str], int] = {}

    def spend(unit: Unit, kind: str, cycles: int) -> None:
        spent[unit, kind] = spent.get((unit, kind), 0) + cycles

    unit = max((u for u in Unit if len(records[u])), key=lambda u: int(records[u][-1, RECORD_END]))
    at, now = len(records[unit]) - 1, result.cycles
    while at >= 0:
        record = records[unit][at]
        issue, end, pc = int(record[RECORD_ISSUE]), int(record[RECORD_END]), int(record[RECORD_PC])
        # From `now`, which is at or before the successor's issue, back to this one's issue.
        if now > end:
            spend(unit, ISSUING, now - end)
            now = end
        spend(unit, codes.kinds[unit][pc], now - issue)
        now = issue
        taken = int(record[RECORD_TAKEN])
        if issue == taken + _ISSUE_CYCLES:
            giver = (
                _giver(codes, records, unit, pc, taken)
                if taken > record[RECORD_WAIT_FROM]
                else None
            )
            if giver is not None:
                spend(unit, ISSUING, now - (taken - 1))
                unit, at, now = *giver, taken - 1
                continue
            # The one before was issued at `before`; what it did afterwards is not on the chain.
            before = int(records[unit][at - 1, RECORD_ISSUE]) if at else 0
            spend(unit, ISSUING, now - before)
            now = before
        at -= 1
    return spent


def _giver(
    codes: _Codes, records: dict[Unit, npt.NDArray[np.int64]], unit: Unit, pc: int, taken: int
) -> tuple[Unit, int] | None:
    """Unit and number of the instruction whose token, the last of those awaited, could be taken in cycle `taken`."""
    for giver in Unit:
        if codes.waits[unit][pc] >> giver & 1:
            ends = records[giver][:, RECORD_END]
            at = int(np.searchsorted(ends, taken - 1))
            while at < len(ends) and ends[at] == taken - 1:
                if codes.signals[giver][int(records[giver][at, RECORD_PC])] >> unit & 1:
                    return giver, at
                at += 1
    return None


def kind_of(unit: Unit, fields: dict[str, int], program: Program) -> str:
    """What an instruction is for, in a few words."""
    if fields["opcode"] == Opcode.SYNC:
        return "tokens only"
    if fields["opcode"] != Opcode.EXECUTE:
        return "control"
    return {
        Unit.LD: _load_kind,
        Unit.ST: _store_kind,
        Unit.MPE: _matrix_kind,
        Unit.SFU: _vector_kind,
        Unit.SYS: lambda *_: "next token",
    }[unit](fields, program)


def _load_kind(fields: dict[str, int], program: Program) -> str:
    region = "memory"
    names = {"kv_cache": "KV cache", "lm_head": "output head"}
    for name, (start, length) in program.information.get("regions", {}).items():
        if start <= fields["address_base"] < start + length:
            region = names.get(name, str(name))
    if region.startswith("layers"):
        region = "weights"
    what = {Destination.SCALE: ", scales", Destination.INPUT: ", to the vector unit"}
    return region + what.get(Destination(fields["destination"]), "")


def _store_kind(fields: dict[str, int], program: Program) -> str:
    return {Pattern.COLUMN: "keys", Pattern.SPREAD: "values", Pattern.SCALAR: "KV scales"}[
        Pattern(fields["pattern"])
    ]


def _matrix_kind(fields: dict[str, int], program: Program) -> str:
    # REST: without what an attention mask leaves out.
    if fields["steps_register"] in (Register.POSITION, Register.REST):
        return "probabilities x values"
    if fields["blocks_register"] in (Register.POSITION, Register.REST):
        return "queries x keys"
    step = "wires" if is_wired(fields) else step_name(step_format(fields))
    head = fields["result_base"] == program.information.get("logits", -1)
    return f"{'output head' if head else 'weights'}, {step}"


def _vector_kind(fields: dict[str, int], program: Program) -> str:
    target, reduce = Target(fields["target"]), Reduce(fields["reduce"])
    if reduce == Reduce.ARGMAX:
        return "arg-max"
    if target == Target.ACTIVATION:
        return "quantize activations"
    if target in (Target.STORE_INTEGER, Target.STORE_FLOAT):
        return "quantize keys and values"
    if target in (Target.SCALAR, Target.MATRIX_SCALE):
        return "scales and factors"
    function = Function(fields["function"])
    if reduce == Reduce.NONE and function == Function.IDENTITY:
        return "multiply, add"
    if function == Function.IDENTITY:
        return f"reduce ({reduce.name.lower()})"
    return function.name.lower().replace("_", " ")
