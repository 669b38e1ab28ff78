"""Where a proof compares a mutant with the processor: modules, what of them is looked into, and limits of signals."""

import dataclasses
from dataclasses import dataclass

from amaranth.utils import exact_log2

from hw.core.operands import State
from hw.core.retirement import in_flight
from hw.spec.instructions import EXECUTE, LOOP_DEPTH, Unit, operation_fields
from hw.spec.machine import MachineSpec
from hw.spec.registers import Counter
from sim_tests.mutation import PROCESSOR, RAM, instances, modules_below

CYCLES = 1 << 31
"""No run of a test takes so many: at a million simulated cycles a second it would be one of half an hour."""
UNITS = {f"lpu_sequencer_{unit.name.lower()}": unit for unit in Unit}
"""The unit of each sequencer."""
PARTNERS = {
    "lpu_sequencer_ld": "lpu_load_unit",
    "lpu_sequencer_st": "lpu_store_unit",
    "lpu_sequencer_mpe": "lpu_matrix_engine",
    "lpu_sequencer_sfu": "lpu_vector_unit",
    "lpu_sequencer_sys": "lpu_system_unit",
}
"""A sequencer, and the unit that says which of its outputs count, and when."""
OBSERVED_WHILE_VALID = tuple(name for name, unit in UNITS.items() if unit != Unit.SYS)
"""Sequencers whose units do not look at an operation that is not offered. SYS reads its buffer anyway."""
Limits = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Scope:
    """Where two netlists are compared.

    Attributes
    ----------
    module : str
        Its ports are what is seen.
    opened : tuple of str
        Modules below it that are looked into. Instances of all others are cut out like memories: what they get
        must be equal, what they give is free and the same for both.
    below : tuple of (str, int)
        Signals of the module, registers or inputs, and limits: only what happens before one of them reaches its limit is
        compared. In that cycle all other inputs are zero, and the module is reset.
    ends : tuple of str
        Conditions in Verilog, with signals in braces: behind a cycle in which one of them holds it is as beyond a limit.
    narrow : tuple of (str, int)
        Inputs of the module, and how many of their bits are free; those above are zero.
    unused : tuple of (str, str)
        Signals, and a condition like those of `ends`: when it holds, outputs and registers may differ, and so may inputs.
    registers : bool
        Registers of the module, but those with limits, are compared like outputs, so that what is to be proved is a step of
        induction. What is read of a memory stays as long as the same row is read and not written.
    cut_products : bool
        Products are cut out: they may be anything, but a bit of theirs is the same for both sides as long as no bit of a
        factor that it depends on differs.
    """

    module: str
    opened: tuple[str, ...] = ()
    below: tuple[tuple[str, int], ...] = ()
    ends: tuple[str, ...] = ()
    narrow: tuple[tuple[str, int], ...] = ()
    unused: tuple[tuple[str, str], ...] = ()
    registers: bool = False
    cut_products: bool = False


def limits(module: str, spec: MachineSpec) -> dict[str, int]:
    """Signals of a module, and what each stays below in every legal program of fewer than `CYCLES` cycles."""
    if module == "lpu_load_writer":
        # A load is no longer than its destination is deep, though the field for its length is the same in all machines.
        return {"index": max(spec.stream_words, spec.scale_words, spec.input_words)}
    if module == "lpu_control":
        # Each counts at most one a cycle.
        numbers = [Counter.BYTES_READ, Counter.BYTES_WRITTEN]
        numbers += [first + unit for first in (Counter.BUSY, Counter.WAIT) for unit in Unit]
        return {"command__cycle": CYCLES} | {f"counter{int(number)}": CYCLES for number in numbers}
    if module in UNITS:
        # Behind its last instruction a program ends with an error.
        return {"cycle": CYCLES, "program_counter": spec.instructions}
    if module == "lpu_matrix_sequence":
        # The weights of a pass are in the stream ring; those of a step take a quarter of a word at least.
        return {"steps_left": 4 * spec.stream_words + 1}
    if module == "lpu_sync_fifo_sequencer_ld_queue":
        # The load unit takes no instruction before the last burst of the one before is accepted.
        return {"level": in_flight(spec, Unit.LD)}
    return {}


def _sequencer(module: str, opened: tuple[str, ...], below: Limits) -> Scope:
    """A sequencer up to the cycle of its first illegal instruction, if nobody writes its instructions during a run.

    The rounds of a loop that is not open do not matter, nor any behind HALT, nor do operands that are not offered. What it does
    behind an illegal instruction is left to programs with faults.
    """
    halted, offer = State.HALTED.value, State.OFFER.value
    unused = [
        (f"rounds{level}", f"{{state}} == {halted} || {{depth}} <= {level}")
        for level in range(LOOP_DEPTH)
    ]
    if module in OBSERVED_WHILE_VALID:
        parts = {field.name for field in EXECUTE[UNITS[module]]}
        unused += [
            (name, f"{{state}} != {offer}")
            for name, _ in operation_fields(UNITS[module])
            if parts & {f"{name}_cap", f"{name}_base"}
        ]
        unused.append(("o__payload", "!{o__valid}"))
    return Scope(
        module,
        opened,
        below,
        ends=("{illegal}", f"|{{write__enable}} && {{state}} != {halted}"),
        unused=tuple(unused),
        registers=True,
        cut_products=True,
    )


def scopes(modules: dict[str, str], module: str, spec: MachineSpec) -> list[Scope]:
    """Scopes for a change of a module, in the order in which a proof is tried.

    For a sequencer its registers come first: an induction over them answers in a minute where a search of the module alone
    does not end. Then, from the narrowest to the widest: the module alone; the same within its limits; a sequencer with few
    bits of its count of cycles; the module with all that is in it; the one that uses it, if there is only one; the whole of
    its unit and the partner of that, in the processor, without what products are, and with it.

    Parameters
    ----------
    modules : dict of str to str
        Text of every module.
    module : str
    spec : MachineSpec
    """
    known = limits(module, spec)
    inner = tuple(name for name in modules_below(modules, module) if name != module)
    result = [_sequencer(module, inner, tuple(known.items()))] if module in UNITS else []
    result.append(Scope(module))
    if known:
        result.append(Scope(module, below=tuple(known.items())))
    if module in UNITS:
        result.append(Scope(module, narrow=(("cycle", exact_log2(CYCLES)),)))
    if inner and module != PROCESSOR:
        result.append(Scope(module, inner))
    users = [name for name, text in modules.items() if module in instances(text)]
    if len(users) == 1 and PROCESSOR not in {module, *users}:
        result.append(Scope(users[0], tuple(modules_below(modules, module))))
    parts = [
        part for part in instances(modules[PROCESSOR]) if module in modules_below(modules, part)
    ]
    for one, other in PARTNERS.items():
        parts += [b for a, b in ((one, other), (other, one)) if a in parts and b not in parts]
    opened = {name for part in parts for name in modules_below(modules, part)}
    wide = Scope(PROCESSOR, tuple(sorted(opened - {PROCESSOR, RAM})))
    return [*result, dataclasses.replace(wide, cut_products=True), wide]
