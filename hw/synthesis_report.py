"""What `lpu synth` reports: resources of components, chain, array and core, and clocks."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

from hw.clock import clock_of
from hw.components import COMPONENTS, Component, chains_of
from hw.spec.dsp import Multiplier
from hw.spec.errors import InputError
from hw.spec.machine import MachineSpec
from hw.synthesis import Resources, synthesize
from hw.tools import tool_version
from hw.verilog import PREFIX, PROCESSOR, generate_verilog

__all__ = ["SynthesisReport"]

WANTED_HZ = {Multiplier.INFERRED: 130e6, Multiplier.ECP5: 150e6}
"""Clocks that components are to reach on an ECP5-85 of speed grade 6."""
CRITICAL_MODULES = ("matrix_row", "matrix_drain", "vector_lane", "sequencer_mpe")
"""Modules of the core whose clock is reported with the components': those through which every product goes, and the
slowest of the vector unit and of the sequencers. A core may lack one."""


class SynthesisReport:
    """Resources and clocks of one machine; each is made when it is asked for.

    Parameters
    ----------
    spec : MachineSpec
        The machine.
    """

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec

    @cached_property
    def core_verilog(self) -> str:
        """Verilog of the whole processor."""
        return generate_verilog(self.spec)

    def names(self) -> list[str]:
        """What a component may be called: those of the registry, `array`, and the core's modules."""
        modules = [
            line.split("(")[0].split()[1].removeprefix(PREFIX)
            for line in self.core_verilog.splitlines()
            if line.startswith(f"module {PREFIX}")
        ]
        return [*COMPONENTS, "array", *(name for name in modules if name != "ram")]

    def check(self, name: str) -> str:
        """Return the name of a component, without the prefix of its module.

        Raises
        ------
        InputError
            If there is no such component.
        """
        name = name.removeprefix(PREFIX)
        if name in COMPONENTS:
            return name
        if name not in (names := self.names()):
            raise InputError(f"--component: {name}: expected one of {', '.join(sorted(names))}")
        return name

    def tasks(self, components: list[str], clock: bool) -> list[Callable[[], Iterator[Any]]]:
        """Steps of the report; each yields rows, `("resources" or "clocks", row)`."""
        if not components:
            critical = [c.name for c in COMPONENTS.values() if c.critical]
            critical += [m for m in CRITICAL_MODULES if m in self.names()]
            steps = [lambda c=c: self._component(c) for c in COMPONENTS.values()]
            steps += [self._array, self._core]
        else:
            critical = [name for name in components if name != "array"]
            steps = [lambda n=name: self._named(n) for name in components]
        if clock:
            steps += [lambda n=n, m=m: self._clock(n, m) for n in critical for m in self._styles(n)]
        return steps

    def _named(self, name: str) -> Iterator[Any]:
        if name == "array":
            return self._array()
        if name in COMPONENTS:
            return self._component(COMPONENTS[name])
        return self._module(name)

    def _component(self, component: Component) -> Iterator[Any]:
        each = self._resources(component)
        yield "resources", _row(component.name, component.of_a_chain or 1, each, "a chain")

    def _resources(self, component: Component) -> Resources:
        return synthesize(component.verilog(Multiplier.DSP48E2), component.module)[0].each

    def _array(self) -> Iterator[Any]:
        """All chains of the machine's matrix engine, one synthesized and the others like it."""
        each = self._resources(COMPONENTS["chain_datapath"])
        yield "resources", _row("chain_datapath", chains_of(self.spec), each, "an array")

    def _module(self, name: str) -> Iterator[Any]:
        rows = synthesize(self.core_verilog, PREFIX + name)
        yield "resources", _row(name, 1, rows[0].each, "its own")

    def _core(self) -> Iterator[Any]:
        """The core as it is generated, and every module of it."""
        try:
            rows = synthesize(self.core_verilog, PROCESSOR)
        except RuntimeError as error:
            yield "failures", _failure("core", "resources", error)
            return
        for row in rows:
            name = "core" if row.name == PROCESSOR else row.name.removeprefix(PREFIX)
            if "lpu_ram" not in name:
                yield "resources", _row(name, row.instances, row.each, "the core")

    def _styles(self, name: str) -> list[Multiplier]:
        """Multipliers that make a difference to a component's clock."""
        if name in COMPONENTS and name not in ("index_decoder", "sparse_multiplexer"):
            return [Multiplier.INFERRED, Multiplier.ECP5]
        return [Multiplier.INFERRED]

    def _clock(self, name: str, multiplier: Multiplier) -> Iterator[Any]:
        if name in COMPONENTS:
            component = COMPONENTS[name]
            verilog, module = component.verilog(multiplier), component.module
        else:
            verilog, module = self.core_verilog, PREFIX + name
        try:
            result = clock_of(verilog, module)
        except RuntimeError as error:
            yield "failures", _failure(name, f"clock ({multiplier.value})", error)
            return
        yield (
            "clocks",
            {
                "component": name,
                "multiplier": multiplier.value,
                "clock_hz": result.clock_hz,
                "wanted_hz": WANTED_HZ[multiplier],
                "path": {
                    "from": result.source,
                    "to": result.sink,
                    "logic_ns": round(result.logic_ns, 3),
                    "routing_ns": round(result.routing_ns, 3),
                },
            },
        )

    def describe(self, rows: list[Any]) -> dict[str, Any]:
        """The report, for JSON."""
        return {
            "target": self.spec.name,
            "machine": f"{self.spec.hash:08x}",
            "failures": [row for kind, row in rows if kind == "failures"],
            "resources": {
                "source": f"synthesized: {tool_version('yosys')}, UltraScale+, module by module",
                "rows": [row for kind, row in rows if kind == "resources"],
            },
            "clocks": {
                "source": f"placed and routed: {tool_version('nextpnr-ecp5')}, ECP5-85 grade 6",
                "rows": [row for kind, row in rows if kind == "clocks"],
            },
        }


def _failure(name: str, figure: str, error: RuntimeError) -> dict[str, str]:
    """A tool stopped: the other figures stand, and which of them failed, and why, stands beside them."""
    reason = str(error).strip().splitlines()[-1]
    return {"component": name, "figure": figure, "reason": reason}


def _row(name: str, instances: int, each: Resources, of: str) -> dict[str, Any]:
    return {
        "component": name,
        "instances": instances,
        "of": of,
        "each": each.to_dict(),
        "total": (each * instances).to_dict(),
    }
