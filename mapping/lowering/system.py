"""SYS's instruction stream: a token for every step."""

from hw.spec.instructions import Unit
from mapping.lowering.assembler import Assembler, units


def lower_system() -> Assembler:
    """Instruction stream of SYS."""
    a = Assembler(Unit.SYS)
    with a.token_loop():
        a.execute(wait=units(Unit.SFU), signal=units(Unit.LD, Unit.ST, Unit.MPE, Unit.SFU))
    return a
