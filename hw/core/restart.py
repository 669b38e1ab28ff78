"""Clock domains of what begins anew with every run."""

from amaranth.hdl import ClockDomain, ClockSignal, DomainRenamer, Module, ResetSignal, Value

__all__ = ["restart_domain"]


def restart_domain(m: Module, name: str, start: Value) -> DomainRenamer:
    """Add a clock domain to a module, for its submodules: `sync`, with `start` as a further reset.

    Their registers have one reset that way. A `ResetInserter` would add a second one to each, and would not reach into
    instances.

    Parameters
    ----------
    m : Module
    name : str
        Of the domain; a name that no module above has given to another one.
    start : Value

    Returns
    -------
    DomainRenamer
        Moves a component from `sync` to the domain.
    """
    m.domains += ClockDomain(name, local=True)
    m.d.comb += [
        ClockSignal(name).eq(ClockSignal()),
        ResetSignal(name).eq(ResetSignal() | start),
    ]
    return DomainRenamer(name)
