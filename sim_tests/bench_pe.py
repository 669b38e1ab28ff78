"""cocotb test of all processing elements side by side, with gaps, against their golden twins."""

from typing import Any

import cocotb
import numpy as np

from emulator.pe.golden import sums
from hw.spec.element_family import ELEMENTS
from sim_tests.pe_operands import random_stream
from sim_tests.streams import Bench, parameters, seed


class Driver:
    """Drives every element with a stream of its own, and records every sum in every cycle."""

    def __init__(self, bench: Bench, names: list[str], cycles: int) -> None:
        self.dut = bench.dut
        self.names = names
        self.cycles = cycles
        self.streams = {
            name: random_stream(ELEMENTS[name], (cycles,), seed() + i)
            for i, name in enumerate(names)
        }
        # Gaps are the same for all, because valid and clear are shared.
        self.valid, self.clear = self.streams[names[0]].valid, self.streams[names[0]].clear
        self.seen: dict[str, list[int]] = {name: [] for name in names}
        self._step = 0
        bench.agents.append(self)

    def port(self, kind: str, name: str) -> Any:
        """A port of the netlist."""
        return getattr(self.dut, f"{kind}_{name.replace('-', '_')}")

    def step(self) -> None:
        """Reads see the cycle that ends, writes take effect in the one that begins."""
        step = self._step
        for name in self.names:
            # Operands written in step t are at the ports in the cycle that step t + 1 sees end.
            self.seen[name].append(int(self.port("sum", name).value))
            if step < self.cycles:
                stream, spec = self.streams[name], ELEMENTS[name]
                self.port("weight", name).value = int(stream.weight[step])
                self.port("activation", name).value = int(stream.activation[step])
                if spec.control_bits:
                    self.port("control", name).value = int(stream.control[step])
        running = step < self.cycles
        self.dut.valid.value = int(running and self.valid[step])
        self.dut.clear.value = int(running and self.clear[step])
        self._step += 1


@cocotb.test()
async def every_sum_in_every_cycle(dut: Any) -> None:
    """The sum of each cycle, wrong latencies included, is the golden one."""
    names: list[str] = parameters()["elements"]
    cycles: int = parameters()["cycles"]
    bench = await Bench.start(dut)
    driver = Driver(bench, names, cycles)
    await bench.cycles(cycles + 6)
    for name in names:
        spec, stream = ELEMENTS[name], driver.streams[name]
        wanted = sums(
            spec, stream.weight, stream.activation, driver.valid, driver.clear, stream.control
        )
        mask = (1 << spec.accumulator_bits) - 1
        start = spec.latency + 1
        seen = np.array(driver.seen[name][start : start + cycles], np.uint64)
        wrong = np.flatnonzero(seen != (wanted.astype(np.uint64) & np.uint64(mask)))
        assert not len(wrong), (
            f"{name}: {len(wrong)} of {cycles} sums differ, the first in cycle {wrong[0]}: "
            f"{int(seen[wrong[0]]):#x} where the golden twin has {int(wanted[wrong[0]]) & mask:#x}"
        )
