"""AXI4 slaves that delay what they may delay and answer some requests with errors."""

import random
from collections import deque

from sim_tests.streams import Bench


class SlowReads:
    """An AXI4 read slave of one channel: random delays of AR and of every beat, some error responses.

    Checks the rules of AXI4 for the master: AR stays until taken, bursts stay within 4096 bytes.

    Parameters
    ----------
    content : data of each word
    faulty : words that are answered with an error
    pace : chance that something is delayed in a cycle
    """

    def __init__(
        self,
        bench: Bench,
        prefix: str,
        content: list[int],
        faulty: set[int],
        pace: float,
        bus_bytes: int,
    ) -> None:
        dut = bench.dut
        self._port = {
            name: getattr(dut, f"{prefix}__{name}")
            for name in (
                *("arvalid", "arready", "araddr", "arlen", "arsize", "arburst"),
                *("rvalid", "rready", "rdata", "rresp", "rlast"),
            )
        }
        self.rng = random.Random(f"{prefix} {pace}")
        self.content, self.faulty, self.pace, self.bus_bytes = content, faulty, pace, bus_bytes
        self.beats: deque[tuple[int, bool]] = deque()
        self.bursts = self.most_bursts = 0
        self._held: tuple[int, int] | None = None
        self._shown = self._accepting = False
        self._port["rvalid"].value = 0
        self._port["arready"].value = 0
        bench.agents.append(self)

    def step(self) -> None:
        port = self._port
        if port["arvalid"].value:
            self._request((int(port["araddr"].value), int(port["arlen"].value)))
        else:
            assert self._held is None, "arvalid fell before the burst was taken"
        if self._shown and port["rready"].value:
            self.bursts -= self.beats.popleft()[1]
            self._shown = False
        self._accepting = self.rng.random() >= self.pace
        port["arready"].value = int(self._accepting)
        if not self._shown and self.beats and self.rng.random() >= self.pace:
            self._shown = True
            word, last = self.beats[0]
            port["rdata"].value = self.content[word % len(self.content)]
            port["rlast"].value = int(last)
            port["rresp"].value = self.rng.choice([1, 2, 3]) if word in self.faulty else 0
        port["rvalid"].value = int(self._shown)

    def _request(self, burst: tuple[int, int]) -> None:
        assert self._held in {None, burst}, "a burst changed before it was taken"
        self._held = burst
        if not self._accepting:
            return
        self._held = None
        address, length = burst[0], burst[1] + 1
        assert address % self.bus_bytes == 0 and int(self._port["arburst"].value) == 1
        assert 1 << int(self._port["arsize"].value) == self.bus_bytes
        assert address // 4096 == (address + length * self.bus_bytes - 1) // 4096
        word = address // self.bus_bytes
        self.beats.extend((word + i, i == length - 1) for i in range(length))
        self.bursts += 1
        self.most_bursts = max(self.most_bursts, self.bursts)


class SlowWrites:
    """An AXI4 write slave of one channel: random delays of AW, W and B, some error responses.

    Checks the rules of AXI4 for the master: requests and words stay until taken, bursts stay within 4096
    bytes, the last word of each is marked.

    Parameters
    ----------
    content : data of each word, changed by the writes
    faulty : words whose bursts are answered with an error
    pace : chance that something is delayed in a cycle
    data_first : accept an address only when its first word is offered
    """

    def __init__(
        self,
        bench: Bench,
        prefix: str,
        content: list[int],
        faulty: set[int],
        pace: float,
        bus_bytes: int,
        data_first: bool,
    ) -> None:
        dut = bench.dut
        self._port = {
            name: getattr(dut, f"{prefix}__{name}")
            for name in (
                *("awvalid", "awready", "awaddr", "awlen", "awsize", "awburst"),
                *("wvalid", "wready", "wdata", "wstrb", "wlast", "bvalid", "bready", "bresp"),
            )
        }
        self.rng = random.Random(f"{prefix} {pace}")
        self.content, self.faulty, self.pace, self.bus_bytes = content, faulty, pace, bus_bytes
        self.data_first = data_first
        self.bursts: deque[tuple[int, int]] = deque()
        self.words: deque[tuple[int, int, bool]] = deque()
        self.responses: deque[bool] = deque()
        self.failures = self.under_way = self.most_bursts = 0
        self._held: dict[str, tuple[int, ...] | None] = {"aw": None, "w": None}
        self._ready = {"aw": False, "w": False}
        self._shown = False
        for name in ("awready", "wready", "bvalid"):
            self._port[name].value = 0
        bench.agents.append(self)

    def step(self) -> None:
        port = self._port
        burst = self._taken("aw", ("awaddr", "awlen"))
        if burst:
            self._check_burst(*burst)
            self.bursts.append((burst[0] // self.bus_bytes, burst[1] + 1))
            self.under_way += 1
            self.most_bursts = max(self.most_bursts, self.under_way)
        word = self._taken("w", ("wdata", "wstrb", "wlast"))
        if word:
            self.words.append((word[0], word[1], bool(word[2])))
        self._finish_bursts()
        if self._shown and port["bready"].value:
            self.failures += self.responses.popleft()
            self.under_way -= 1
            self._shown = False
        if not self._shown and self.responses and self.rng.random() >= self.pace:
            self._shown = True
            port["bresp"].value = self.rng.choice([1, 2, 3]) if self.responses[0] else 0
        port["bvalid"].value = int(self._shown)
        waits_for_data = self.data_first and not (port["wvalid"].value or self.words)
        self._ready["aw"] = self.rng.random() >= self.pace and not waits_for_data
        self._ready["w"] = self.rng.random() >= self.pace
        for name, ready in self._ready.items():
            port[f"{name}ready"].value = int(ready)

    def _taken(self, channel: str, fields: tuple[str, ...]) -> tuple[int, ...] | None:
        held = self._held[channel]
        if not self._port[f"{channel}valid"].value:
            assert held is None, f"{channel}valid fell before it was taken"
            return None
        values = tuple(int(self._port[name].value) for name in fields)
        assert held in {None, values}, f"{channel} changed before it was taken"
        self._held[channel] = None if self._ready[channel] else values
        return values if self._ready[channel] else None

    def _check_burst(self, address: int, length: int) -> None:
        assert address % self.bus_bytes == 0 and int(self._port["awburst"].value) == 1
        assert 1 << int(self._port["awsize"].value) == self.bus_bytes
        assert address // 4096 == (address + (length + 1) * self.bus_bytes - 1) // 4096

    def _finish_bursts(self) -> None:
        while self.bursts and len(self.words) >= self.bursts[0][1]:
            first, length = self.bursts.popleft()
            failed = False
            for i in range(length):
                data, strobe, last = self.words.popleft()
                assert last == (i == length - 1), "wlast does not mark the last word"
                index = (first + i) % len(self.content)
                mask = sum(0xFF << 8 * b for b in range(self.bus_bytes) if strobe >> b & 1)
                self.content[index] = self.content[index] & ~mask | data & mask
                failed |= index in self.faulty
            self.responses.append(failed)
