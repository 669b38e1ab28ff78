"""Energy of a run: counted events times what one of each takes, and power that is there without any event.

Everything here is modelled. The energies of single events are published ones of other chips, as none are known of this
one; what they leave of the one published measurement of a whole board is taken as static power, and so stands for
all that is not counted: clocks, configuration, leakage, idle channels, the host interface, fans and regulators.
"""

from dataclasses import dataclass, field
from typing import Any

from emulator.report import multiplications
from emulator.timing import TimingResult
from hw.spec.instructions import Unit
from hw.spec.machine import MachineSpec
from hw.spec.program import Program

__all__ = ["EVENTS", "EnergyCosts", "count_events", "joules"]

PICO = 1e-12


def _cost(value: float, source: str) -> Any:
    return field(default=value, metadata={"source": source})


@dataclass(frozen=True, kw_only=True)
class EnergyCosts:
    """Energy of one event of each kind, in picojoules; power without events, in watts. Each field has its source."""

    dram_bit: float = _cost(
        3.92, "published: HBM2 at its interface, O'Connor et al., MICRO 2017 (fine-grained DRAM)"
    )
    buffer_bit: float = _cost(
        0.3125,
        "published: 20 pJ for 64 bits of a 32 KiB memory in 45 nm, Horowitz, ISSCC 2014; an UltraRAM block has 36 KiB",
    )
    dsp_operation: float = _cost(
        3.2, "published: 32-bit multiplication and addition in 45 nm, Horowitz, ISSCC 2014"
    )
    float_operation: float = _cost(
        4.6, "published: FP32 multiplication and addition in 45 nm, Horowitz, ISSCC 2014"
    )
    static_watts: float = _cost(
        35.9,
        "fitted: what the events of flightllm-u280 leave of the 45 W that FlightLLM (FPGA 2024) gives for the U280",
    )


EVENTS = ("dram_bit", "buffer_bit", "dsp_operation", "float_operation")
"""Fields of `EnergyCosts` that are counted."""


def count_events(
    program: Program, result: TimingResult, prompt_length: int, tokens: int
) -> dict[str, float]:
    """Events of a run on all cores, by `EVENTS`.

    Bits from and to memory are counted on the ports. Bits of buffers: what comes from memory is written and read once;
    a cycle of the matrix engine reads its activations; a cycle of the vector unit reads three operands and
    writes one. A DSP slice makes two multiplications at a time.
    """
    spec = program.machine
    moved = 8 * (result.bytes_read + result.bytes_written) * spec.channels * spec.cores
    lanes = result.busy[Unit.SFU] * spec.lanes * spec.cores
    activations = result.busy[Unit.MPE] * 8 * spec.activation_row_bytes * spec.cores
    macs = multiplications(program, prompt_length, tokens) * spec.cores
    return {
        "dram_bit": moved,
        "buffer_bit": 2 * moved + 4 * 32 * lanes + activations * spec.matrix_columns,
        "dsp_operation": macs / 2,
        "float_operation": lanes,
    }


def joules(
    spec: MachineSpec, events: dict[str, float], cycles: int, costs: EnergyCosts | None = None
) -> float:
    """Energy of so many events in so many cycles.

    Parameters
    ----------
    spec : MachineSpec
        For its clock.
    events : dict of str to float
        By `EVENTS`.
    cycles : int
    costs : EnergyCosts, optional
    """
    costs = costs or EnergyCosts()
    dynamic = sum(getattr(costs, name) * events[name] for name in EVENTS) * PICO
    return dynamic + costs.static_watts * cycles / spec.clock_hz
