"""Every executed instruction of a unit, with loop indices and POSITION, from a program and its retirements."""

from collections.abc import Iterator

from hw.spec.instructions import (
    LOOP_DEPTH,
    Condition,
    Opcode,
    Register,
    Unit,
    decode,
)
from hw.spec.program import Program
from sim_tests.exactness import Expectation
from sim_tests.instruction_text import evaluate_count


class Walked:
    """One executed instruction: fields, loop indices, the unit's own registers, open loops, and whether a branch was taken."""

    def __init__(
        self,
        fields: dict[str, int],
        indices: list[int],
        own: dict[Register, int],
        depth: int,
        taken: bool,
    ) -> None:
        self.fields = fields
        self.indices = indices
        self.own = own
        self.depth = depth
        self.taken = taken


def walk(program: Program, expected: Expectation, unit: Unit) -> Iterator[Walked]:
    """Every instruction that a sequencer executes, control instructions too, in order.

    A plain interpreter of `docs/isa.md`; the emulator's entries do not show control instructions.
    """
    words = program.instructions.get(unit, [])
    decoded: dict[int, dict[str, int]] = {}
    request = expected.request
    registers = {Register.PROMPT_LENGTH: len(request.prompt), Register.STEPS: request.steps}
    pc = position = skipped = 0
    loops: list[list[int]] = []
    while True:
        fields = decoded.get(pc)
        if fields is None:
            fields = decoded[pc] = decode(unit, words[pc])
        opcode = Opcode(fields["opcode"])
        indices = [loop[0] for loop in loops] + [0] * (LOOP_DEPTH - len(loops))
        own = {Register.POSITION: position, Register.SKIPPED: skipped}
        own[Register.REST] = max(0, position - skipped)
        registers |= own
        taken = opcode == Opcode.BRANCH and (
            fields["condition"] == Condition.ALWAYS
            or (fields["condition"] == Condition.PREFILL and position < len(request.prompt))
            or (fields["condition"] == Condition.END and position >= expected.end_position)
            or (fields["condition"] == Condition.REST and position > skipped)
        )
        yield Walked(fields, indices, own, len(loops), taken)
        pc += 1
        if opcode == Opcode.HALT:
            return
        if opcode == Opcode.INCREMENT:
            count = evaluate_count(fields, "count", indices, registers)
            position += -count if fields["backward"] else count
        elif opcode == Opcode.SKIP:
            made = evaluate_count(fields, "count", indices, registers)
            skipped = max(0, made - fields["less"])
        elif opcode == Opcode.LOOP:
            rounds = evaluate_count(fields, "count", indices, registers)
            if rounds:
                loops.append([0, rounds])
            else:
                pc = fields["target"]
        elif opcode == Opcode.END_LOOP:
            loops[-1][0] += 1
            if loops[-1][0] < loops[-1][1]:
                pc = fields["target"]
            else:
                loops.pop()
        elif taken:
            pc = fields["target"]
            del loops[len(loops) - fields["close"] :]
