"""Wave files: their formats, and signal lists beside them, what GTKWave and Surfer show first of a run."""

import itertools
from pathlib import Path

from amaranth.hdl import Shape

from hw.core.processor import control_ports, memory_ports, trace_ports
from hw.spec.errors import InputError
from hw.spec.instructions import LOOP_DEPTH, Unit
from hw.spec.machine import MachineSpec
from hw.spec.output import atomic_write
from sim_tests.fst import check_fst

TOP = "lpu_simulation"
WAVE_SUFFIXES = (".vcd", ".fst")

_CHANNEL_SIGNALS = ("arvalid", "arready", "araddr", "arlen", "rvalid", "rready", "rlast")
_CHANNEL_SIGNALS += ("awvalid", "awready", "awaddr", "awlen", "wvalid", "wready", "bvalid")
_TRACE_SIGNALS = (
    "valid",
    "pc",
    *(f"index{level}" for level in range(LOOP_DEPTH)),
    "issue",
    "end",
    "checksum",
)


def check_wave(wave: Path) -> None:
    """Refuse wave files that cannot be written here.

    Raises
    ------
    InputError
        If the suffix is none of `WAVE_SUFFIXES`, or what writes FST files is missing.
    """
    if wave.suffix not in WAVE_SUFFIXES:
        raise InputError(
            f"--wave: expected a name that ends with .vcd or .fst, found {wave.name!r}"
        )
    if wave.suffix == ".fst":
        check_fst()


def signal_groups(spec: MachineSpec) -> dict[str, list[tuple[str, int]]]:
    """Title -> signals (hierarchical name and width) of host port, retirements by unit, memory channels."""
    groups = {"clock and host": [(f"{TOP}.clk", 1), (f"{TOP}.rst", 1), (f"{TOP}.irq", 1)]}
    groups["clock and host"] += [
        (f"{TOP}.{name}", Shape.cast(member.shape).width)
        for name, (_, member) in control_ports().items()
        if name.startswith("s_axi_")
    ]
    traced = {
        (core, unit, name): (port, Shape.cast(member.shape).width)
        for port, (core, unit, name, member) in trace_ports(spec).items()
    }
    for core, unit in itertools.product(range(spec.cores), Unit):
        title = f"core {core} {unit.name}" if spec.cores > 1 else unit.name
        ports = [traced[core, unit, name] for name in _TRACE_SIGNALS]
        groups[f"{title} retirements"] = [
            (f"{TOP}.processor.{port}", width) for port, width in ports
        ]
    for number in range(spec.cores * spec.channels):
        members = memory_ports(spec, number)
        groups[f"memory channel {number}"] = [
            (f"{TOP}.processor.{port}", Shape.cast(members[port][1].shape).width)
            for port in (f"m_axi_{number}_{name}" for name in _CHANNEL_SIGNALS)
        ]
    return groups


def write_views(wave: Path, spec: MachineSpec) -> list[Path]:
    """Write `<wave>.gtkw` for GTKWave and `<wave>.sucl`, a command file for Surfer; their paths."""
    groups = signal_groups(spec)
    gtkwave, surfer = wave.with_suffix(".gtkw"), wave.with_suffix(".sucl")
    lines = [f'[dumpfile] "{wave.absolute()}"', "[timestart] 0", "[sst_expanded] 1"]
    commands = [f"load_file {wave.absolute()}"]
    for title, signals in groups.items():
        lines += ["@200", f"-{title}", "@22"]
        commands.append(f"divider_add {title}")
        for name, width in signals:
            lines.append(f"{name}[{width - 1}:0]" if width > 1 else name)
            commands.append(f"variable_add {name}")
    commands.append("zoom_fit")
    for path, content in ((gtkwave, lines), (surfer, commands)):
        with atomic_write(path) as part:
            part.write_text("\n".join(content) + "\n")
    return [gtkwave, surfer]
