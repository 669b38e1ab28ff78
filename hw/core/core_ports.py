"""What host control and cores tell each other, and what cores tell each other."""

from amaranth.lib.wiring import In, Member, Out, Signature

from hw.core.exchange import received_layout, result_layout, sent_layout
from hw.core.operands import REGISTER_BITS
from hw.core.ports import write_port
from hw.core.retirement import CYCLE_BITS, PC_BITS
from hw.core.system import TOKEN_BITS
from hw.core.vector_reduce import INDEX_BITS, KEY_BITS
from hw.spec.instructions import Unit, instruction_bits
from hw.spec.machine import MachineSpec
from hw.spec.registers import STOP_TOKENS

__all__ = ["PART_BITS", "command_signature", "neighbour_members", "status_signature"]

PART_BITS = 32
"""Bits of an instruction that are written at a time."""


def command_signature(spec: MachineSpec) -> Signature:
    """From the host control to all cores.

    Members
    -------
    start, running, cycle : Out(1), Out(1), Out(48)
        Cycle 0 of a run; the cycles from 1 to its end; number of the cycle.
    prompt_length, steps, stop_enable, stop_token : Out
        What the host wrote.
    token_write : Out(write_port)
        The token buffers, while no run lasts.
    instruction0 ... : Out(write_port)
        The instruction memories by unit.
    """
    instructions = {
        f"instruction{int(unit)}": Out(
            write_port(spec.instructions, instruction_bits(unit), PART_BITS)
        )
        for unit in Unit
    }
    return Signature({
        "start": Out(1),
        "running": Out(1),
        "cycle": Out(CYCLE_BITS),
        "prompt_length": Out(REGISTER_BITS),
        "steps": Out(REGISTER_BITS),
        "stop_enable": Out(STOP_TOKENS),
        "stop_token": Out(TOKEN_BITS).array(STOP_TOKENS),
        "token_write": Out(write_port(spec.tokens, TOKEN_BITS)),
        **instructions,
    })


def status_signature() -> Signature:
    """From a core to the host control.

    Members
    -------
    idle : Out(5)
        Sequencers that are halted and have nothing under way.
    settled : Out(1)
        No transfer of an earlier run is under way on the memory channels.
    retired, busy, waiting : Out(5)
        For the watchdog and the counters.
    beat_read, beat_written : Out(1)
        A beat on every channel.
    illegal, outside : Out(5), Out(5)
        Errors by unit; `pc` is where.
    read_error, write_error, overflow : Out(1)
        Errors of responses (of LD, ST), and of the token counters.
    pc, oldest_pc : Out(13), arrays by unit
        Of the latest instruction; of the oldest that is under way.
    """
    units = len(Unit)
    return Signature({
        "idle": Out(units),
        "settled": Out(1),
        "retired": Out(units),
        "busy": Out(units),
        "waiting": Out(units),
        "beat_read": Out(1),
        "beat_written": Out(1),
        "illegal": Out(units),
        "outside": Out(units),
        "read_error": Out(1),
        "write_error": Out(1),
        "overflow": Out(1),
        "pc": Out(PC_BITS).array(units),
        "oldest_pc": Out(PC_BITS).array(units),
    })


def neighbour_members(spec: MachineSpec) -> dict[str, Member]:
    """Members of a core towards the network between cores (`hw.core.exchange`); none if there is one core.

    `offer`, `go`, `sent`, `received`, `sent_result`, `received_result` are those of the vector unit for an exchange; `token_offer`, `token_go` those of the
    SYS unit for a token, which comes as `token`; `best_key`, `best_index` are the core's candidate for it.
    """
    if spec.cores == 1:
        return {}
    return {
        "offer": Out(1),
        "go": In(1),
        "sent": Out(sent_layout(spec)),
        "received": In(received_layout(spec)),
        "sent_result": Out(result_layout()),
        "received_result": In(result_layout()),
        "token_offer": Out(1),
        "token_go": In(1),
        "best_key": Out(KEY_BITS),
        "best_index": Out(INDEX_BITS),
        "token": In(TOKEN_BITS),
    }
