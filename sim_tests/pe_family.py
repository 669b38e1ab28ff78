"""The whole family synthesized, and its figures as rows of a table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from hw.pe.element import make_element
from hw.spec.element_family import ELEMENTS, element_spec
from sim_tests.liberty import Library
from sim_tests.pe_synthesis import (
    FPGA_FAMILIES,
    FpgaResources,
    Synthesized,
    fpga_resources,
    synthesize,
    synthesize_all,
)

__all__ = ["INT8_ELEMENTS", "Family", "synthesize_family"]

INT8_ELEMENTS = ("int8", "int8-booth", "int8-tree")
"""Three forms of one function; the smallest is the baseline of all comparisons."""


@dataclass(frozen=True)
class Family:
    """Elements mapped to one library.

    Parameters
    ----------
    library : Library
        The cells.
    elements : mapping of str to Synthesized
        By name.
    fpga : mapping of str to mapping of str to FpgaResources
        Element -> family -> resources; empty where they were not asked for.
    """

    library: Library
    elements: Mapping[str, Synthesized]
    fpga: Mapping[str, Mapping[str, FpgaResources]]

    @property
    def baseline(self) -> str | None:
        """Name of the smallest INT8 element, if there is one."""
        present = [name for name in INT8_ELEMENTS if name in self.elements]
        return min(present, key=lambda name: self.elements[name].area, default=None)

    def rows(self) -> list[dict[str, Any]]:
        """One row an element; every figure is synthesized."""
        result = []
        for name, element in self.elements.items():
            row: dict[str, Any] = {
                "element": name,
                "area": element.area,
                "area_unit": self.library.unit,
                "area_over_int8": None,
                "area_over_fp16": None,
                "longest_path": element.delay,
                "time_unit": self.library.time_unit,
                "registers": element.registers,
                "yosys_booth": element.booth,
            }
            if self.baseline is not None:
                row["area_over_int8"] = element.area / self.elements[self.baseline].area
            if "fp16" in self.elements:
                row["area_over_fp16"] = element.area / self.elements["fp16"].area
            if name in self.fpga:
                look_up, packed = (self.fpga[name][family] for family in FPGA_FAMILIES)
                row |= {
                    "xcup_lut": look_up.lut,
                    "xcup_ff": look_up.ff,
                    "xcup_dsp": look_up.dsp,
                    "xcup_carry4": look_up.carry4,
                    "xc7_dsp": packed.dsp,
                    "xc7_lut": packed.lut,
                }
            result.append(row)
        return result


def synthesize_family(
    library: Library,
    names: Sequence[str] = (),
    with_fpga: bool = False,
    done: Callable[[int], None] = lambda steps: None,
) -> Family:
    """Synthesize elements on all cores; what was done before is read from the cache.

    Parameters
    ----------
    names : sequence of str
        Elements; none means all.
    with_fpga : bool
        Also map to the FPGA families, without and with DSP blocks.
    done : callable
        Is told of each circuit that is ready.
    """
    specs = [element_spec(name) for name in names] or list(ELEMENTS.values())
    tasks: list[Callable[[], Any]] = [
        partial(synthesize, spec.name, make_element(spec), library) for spec in specs
    ]
    for spec in specs if with_fpga else ():
        tasks += [
            partial(fpga_resources, spec.name, make_element(spec), family)
            for family in FPGA_FAMILIES
        ]
    results = synthesize_all(tasks, done)
    elements = {spec.name: result for spec, result in zip(specs, results, strict=False)}
    fpga: dict[str, Mapping[str, FpgaResources]] = {}
    if with_fpga:
        rest = results[len(specs) :]
        count = len(FPGA_FAMILIES)
        fpga = {
            spec.name: dict(zip(FPGA_FAMILIES, rest[count * i : count * (i + 1)], strict=True))
            for i, spec in enumerate(specs)
        }
    return Family(library, elements, fpga)
