"""Signal lists beside a wave file: what GTKWave and Surfer show first of a run."""

from pathlib import Path

from hw.core.simulation import Simulation
from hw.spec.instructions import LOOP_DEPTH, Unit
from hw.spec.machine import MachineSpec
from hw.spec.output import atomic_write

TOP = "lpu_simulation"
_CHANNEL_SIGNALS = ("arvalid", "arready", "araddr", "arlen", "rvalid", "rready", "rlast")
_CHANNEL_SIGNALS += ("awvalid", "awready", "awaddr", "awlen", "wvalid", "wready", "bvalid")
_TRACE_SIGNALS = ("valid", "pc", *(f"index{level}" for level in range(LOOP_DEPTH)), "issue", "end", "checksum")


def signal_groups(spec: MachineSpec) -> dict[str, list[tuple[str, int]]]:
    """Title -> signals (hierarchical name and width) of host port, retirements by unit, memory channels."""
    ports = Simulation(spec).signature.members
    groups = {"clock and host": [(f"{TOP}.clk", 1), (f"{TOP}.rst", 1), (f"{TOP}.irq", 1)]}
    groups["clock and host"] += [
        (f"{TOP}.{name}", _width(member.shape)) for name, member in ports.items() if name.startswith("s_axi_")
    ]
    from hw.core.processor import memory_ports, trace_ports

    traced = trace_ports()
    for unit in Unit:
        groups[f"{unit.name} retirements"] = [
            (f"{TOP}.processor.trace_{unit.name.lower()}_{name}", _width(traced[f"trace_{unit.name.lower()}_{name}"][2].shape))
            for name in _TRACE_SIGNALS
        ]
    for channel in range(spec.channels):
        members = memory_ports(spec, channel)
        groups[f"memory channel {channel}"] = [
            (f"{TOP}.processor.m_axi_{channel}_{name}", _width(members[f"m_axi_{channel}_{name}"][1].shape))
            for name in _CHANNEL_SIGNALS
        ]
    return groups


def _width(shape: object) -> int:
    from amaranth.hdl import Shape

    return Shape.cast(shape).width


def write_views(wave: Path, spec: MachineSpec) -> list[Path]:
    """Write `<wave>.gtkw` for GTKWave and `<wave>.surfer` for Surfer; their paths."""
    groups = signal_groups(spec)
    gtkwave, surfer = wave.with_suffix(".gtkw"), wave.with_suffix(".surfer")
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
