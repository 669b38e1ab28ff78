"""The event engine: tokens, resources with queues, and a heap of what happens next; times are exact.

Each token in flight has a position of the pipeline. The engine takes the earliest event, gives the token
its next operation, and puts back the time at which that ends. A resource serves in order of arrival (equal
times: lower position first). `emulator.hardwired_system.fabric` does the same message by message.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emulator.hardwired_system.event_loop import serve
from emulator.hardwired_system.keys_values import attention_cost, resident_bytes, sequence_limit
from emulator.hardwired_system.layer import head_operations
from emulator.hardwired_system.machine import SystemMachine
from emulator.hardwired_system.model import SystemModel
from emulator.hardwired_system.operation_tables import collision_odds, encode, turn_tables
from hw.spec.errors import InputError

Ints = npt.NDArray[np.int64]

RETRY_CYCLES = 64
"""How long an event is put off that has to wait for another token of its sequence, in cycles."""


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
    result = serve(
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
