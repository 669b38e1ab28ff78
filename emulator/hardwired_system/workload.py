"""Continuous batching: sequences of different lengths, prompts and answers mixed."""

from typing import Any

import numpy as np

from emulator.hardwired_system.engine import Requests, run
from emulator.hardwired_system.machine import SystemMachine
from emulator.hardwired_system.model import SystemModel
from hw.spec.errors import InputError

SPREAD = 0.7


def mixed_requests(
    machine: SystemMachine,
    sequences: int,
    prompt: int,
    output: int,
    sequences_per_second: float | None,
    seed: int,
) -> Requests:
    """Sequences with log-normal lengths of these means; they arrive at random, or all at once.

    Raises
    ------
    InputError
        If a number is not positive.
    """
    for name, value in (("sequences", sequences), ("prompt", prompt), ("output", output)):
        if value < 1:
            raise InputError(f"{name}: expected 1 or more, found {value}")
    if sequences_per_second is not None and sequences_per_second <= 0:
        raise InputError(f"arrivals: expected more than 0 a second, found {sequences_per_second}")
    rng = np.random.default_rng(seed)

    def lengths(mean: int) -> np.ndarray:
        drawn = rng.lognormal(np.log(mean) - SPREAD**2 / 2, SPREAD, sequences)
        return np.maximum(1, np.rint(drawn)).astype(np.int64)

    arrival = np.zeros(sequences, np.int64)
    if sequences_per_second is not None:
        gaps = rng.exponential(machine.ticks_per_second / sequences_per_second, sequences)
        arrival = np.cumsum(gaps).astype(np.int64)
    zero = np.zeros(sequences, np.int64)
    return Requests(lengths(prompt), lengths(output), arrival, zero)


def serve(
    model: SystemModel, machine: SystemMachine, requests: Requests, seed: int = 0
) -> dict[str, Any]:
    """Serve all sequences and return figures of the run.

    Raises
    ------
    InputError
        If the longest sequence exceeds the positions of the model or the memory of a chip.
    """
    longest = int((requests.prompt + requests.output).max())
    if longest > model.maximum_positions:
        raise InputError(
            f"{model.name}: expected sequences of at most {model.maximum_positions} positions, "
            f"found one of {longest}"
        )
    # The last generated token is not processed: it only comes out.
    total = int((requests.prompt + requests.output - 1).sum())
    served = run(model, machine, requests, total, seed)
    second = machine.ticks_per_second
    new = served.generated == 1
    generated, seconds = int(new.sum()), float(served.end[-1]) / second
    finish = np.zeros(len(requests.prompt), np.int64)
    np.maximum.at(finish, served.sequence, served.end)
    first = np.full(len(requests.prompt), np.iinfo(np.int64).max)
    np.minimum.at(first, served.sequence[new], served.end[new])
    waits = (first - requests.arrival) / second
    rates = requests.output / ((finish - requests.arrival) / second)
    shares = served.times.sum(axis=0)
    return {
        "sequences": len(requests.prompt),
        "prompt_tokens": int(requests.prompt.sum()),
        "generated_tokens": generated,
        "seconds": seconds,
        "generated_tokens_per_second": generated / seconds,
        "processed_tokens_per_second": total / seconds,
        "median_seconds_to_first_token": float(np.median(waits)),
        "p99_seconds_to_first_token": float(np.percentile(waits, 99)),
        "median_tokens_per_second_per_user": float(np.median(rates)),
        "time_shares": dict(
            zip(
                ("links", "projection", "attention", "stall", "other"),
                (shares / shares.sum()).tolist(),
                strict=True,
            )
        ),
    }
