"""SYS's instruction stream: the prompt's tokens for their embeddings, then a token for every step."""

from hw.spec.instructions import Opcode, Unit
from mapping.lowering.assembler import Assembler, fixed, units
from mapping.lowering.levels import chunks, prefill_phase
from mapping.lowering.plan import Plan


def lower_system(plan: Plan) -> Assembler:
    """Instruction stream of SYS."""
    a = Assembler(Unit.SYS)
    if plan.chunk:
        with a.loop(chunks(plan)), a.loop(prefill_phase(plan).rows):
            a.execute(signal=units(Unit.LD))
            # LD has taken the token for its address.
            a.sync(wait=units(Unit.LD))
            a.emit(Opcode.INCREMENT, **fixed(1).fields("count"))
    with a.token_loop():
        a.execute(wait=units(Unit.SFU), signal=units(Unit.LD, Unit.ST, Unit.MPE, Unit.SFU))
        a.leave_at_end()
    return a
