"""Components that a design has very often: elaborated once, and instantiated by name everywhere else."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from amaranth.hdl import (
    ClockSignal,
    Instance,
    ResetSignal,
    ValueCastable,
)
from amaranth.lib import wiring

from hw.rtlil import snake

__all__ = ["MANY", "Library", "repeated"]

MANY = 64
"""From so many instances in a design on, one elaboration for all of them is worth a module of its own."""


@dataclass
class Library:
    """The `platform` of a conversion to Verilog in which repeated components become instances.

    Attributes
    ----------
    components : dict of str to component
        Name of the module -> the first of the components that have it.
    """

    components: dict[str, Any] = field(default_factory=dict)
    _names: dict[Hashable, str] = field(default_factory=dict)

    def instance(self, component: Any) -> Instance:
        """An instance of the component's module, with the component's own ports on it."""
        key = _identity(component)
        name = self._names.setdefault(
            key, f"shared.{snake(type(component).__name__)}_{len(self._names)}"
        )
        if self.components.setdefault(name, component) is not component:
            # Its ports are used; that it is never elaborated is no mistake, and Amaranth need not warn.
            component._MustUse__used = True
        ports: dict[str, Any] = {"i_clk": ClockSignal(), "i_rst": ResetSignal()}
        for path, member, value in component.signature.flatten(component):
            if isinstance(value, ValueCastable):
                value = value.as_value()
            direction = "i" if member.flow == wiring.In else "o"
            ports[f"{direction}_{'__'.join(map(str, path))}"] = value
        return Instance(name, **ports)


def _identity(component: Any) -> Hashable:
    """The class, and what its constructor was given: every public attribute that is no port."""
    ports = component.signature.members.keys()
    given = {
        name: value
        for name, value in vars(component).items()
        if name not in ports and not name.startswith("_")
    }
    # Of what has no value to compare, the object itself.
    values = (
        (name, value if isinstance(value, Hashable) else id(value)) for name, value in given.items()
    )
    return type(component), tuple(sorted(values, key=lambda item: item[0]))


def repeated(component: Any, platform: object, count: int) -> Any:
    """What to add as a submodule: the component, or an instance of the module that all its equals share.

    Parameters
    ----------
    component : wiring.Component
        Its ports are used either way. It has registers, and no clock domain but `sync`; its netlist depends on nothing
        but its public attributes.
    platform : object
        Of the `elaborate` that calls.
    count : int
        How many the design has.
    """
    if isinstance(platform, Library) and count >= MANY:
        return platform.instance(component)
    return component
