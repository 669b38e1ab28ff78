"""The configurable sparse DSP chain."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.core.pair_mac import OPERAND_BITS, PairMac, Start
from hw.core.pipeline import delays
from hw.core.reduction_node import OverflowAdjust, ReductionNode, carried_on, pending_layout
from hw.core.result_queue import ResultQueue
from hw.core.sparse_multiplexer import SparseMultiplexer
from hw.spec.chain import CANDIDATES, INDEX_BITS, KEPT, KEPT_BITS, QUEUE_LATENCY, ChainSpec

__all__ = ["Chain", "ChainDatapath", "chain_input_layout", "chain_output_layout"]


def chain_input_layout(spec: ChainSpec) -> data.StructLayout:
    """A beat of a chain."""
    byte = signed(OPERAND_BITS)
    return data.StructLayout({
        # Position of N in `KEPT`.
        "kept": KEPT_BITS,
        # Each cell has two weights for one activation, not one weight for two.
        "two_weights": 1,
        # Weight of each cell, kept ones only, output by output; and the second one.
        "weights": data.ArrayLayout(byte, spec.cells),
        "other_weights": data.ArrayLayout(byte, spec.cells),
        # Which activation each cell takes.
        "indices": data.ArrayLayout(INDEX_BITS, spec.cells),
        # Activations of a token, and of a second one.
        "activations": data.ArrayLayout(byte, CANDIDATES),
        "other_activations": data.ArrayLayout(byte, CANDIDATES),
        "tag": spec.tag_bits,
    })


def chain_output_layout(spec: ChainSpec) -> data.StructLayout:
    """What a beat yields: the two sums of each output, at the group behind which it ends."""
    sums = data.StructLayout({"low": signed(spec.output_bits), "high": signed(spec.output_bits)})
    return data.StructLayout({
        # Bit g: an output ends behind group g; the sums of the other groups mean nothing.
        "emitted": spec.outputs,
        "sums": data.ArrayLayout(sums, spec.outputs),
        "tag": spec.tag_bits,
    })


class ChainDatapath(wiring.Component):
    """16/N dot products of N kept weights a beat, each with two tokens, or two of them with one.

    A beat of N of 16 has 16/N outputs of N cells each (with `cells` cells: `cells`/N): output o owns cells
    o*N ... o*N + N - 1 and ends behind the last of them. With `two_weights` low, the sums of output o are
    low = sum of weights[j] * activations[indices[j]] and high = the same with `other_activations`. With
    `two_weights` high they are low = sum of weights[j] * activations[indices[j]] and high = the same with
    `other_weights`. N = 0 is a beat without outputs.

    The products of a cell share a DSP word, and words run down the cascade. Where the low lane could
    overflow (`ChainSpec.adjusted_cells`), the word goes through fabric and leaves the upper part of that
    lane to the next reduction node. Operands and modes enter each cell with the delay of
    `ChainSpec.skew`, and the outputs of a beat leave together.

    No flow control: a beat enters in any cycle, and leaves `ChainSpec.latency` cycles later. An enable
    that reaches every register would be the slowest path of all; `Chain` can be stalled.

    Parameters
    ----------
    spec : ChainSpec
        Geometry, operands, multiplier.

    Members
    -------
    beat : In(chain_input_layout(spec))
        A beat.
    valid : In(1)
        There is one.
    result : Out(chain_output_layout(spec))
        What it yields.
    done : Out(1)
        There is a result.
    """

    # pyright knows no members of views.
    beat: Any
    valid: Value
    result: Any
    done: Value

    def __init__(self, spec: ChainSpec) -> None:
        self.spec = spec
        super().__init__({
            "beat": In(chain_input_layout(spec)),
            "valid": In(1),
            "result": Out(chain_output_layout(spec)),
            "done": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        # Validity alone is reset: what is not valid may be anything.
        valid: Value = self.valid
        for age in range(spec.latency):
            later = Signal(name=f"valid_{age}")
            m.d.sync += later.eq(valid)
            valid = later
        m.d.comb += self.done.eq(valid)
        # breaks[t]: whether outputs end behind groups, t cycles behind the first cell's operands.
        breaks = delays(m, "breaks", self._breaks(m, self.beat.kept), spec.latency)[1:]
        m.d.comb += self.result.tag.eq(delays(m, "tag", self.beat.tag, spec.latency)[-1])

        words = self._cells(m, self.beat, breaks)
        emitted = []
        for group, (low, high) in enumerate(self._nodes(m, words, breaks)):
            m.d.comb += [
                self.result.sums[group].low.eq(low),
                self.result.sums[group].high.eq(high),
            ]
            emitted.append(self._broken(breaks[spec.latency - 1], group))
        m.d.comb += self.result.emitted.eq(Cat(emitted))
        return m

    def _breaks(self, m: Module, kept: Value) -> Value:
        """Bit n: outputs end behind every 2**n groups."""
        sizes = [n for n in KEPT if self.spec.group <= n <= self.spec.cells]
        bits = Signal(len(sizes))
        for position, size in enumerate(sizes):
            shorter = [KEPT.index(n) for n in sizes if n <= size]
            m.d.comb += bits[position].eq((kept >= shorter[0]) & (kept <= shorter[-1]))
        return bits

    def _broken(self, breaks: Value, group: int) -> Value:
        """Whether an output ends behind a group."""
        return breaks[((group + 1) & -(group + 1)).bit_length() - 1]

    def _cells(self, m: Module, beat: Any, breaks: list[Value]) -> list[Value]:
        """The cells; returns the word at the end of each group."""
        spec = self.spec
        two_weights = delays(m, "two_weights", beat.two_weights, 1)[1]
        ends: list[Value] = []
        below: PairMac | None = None
        for number in range(spec.cells):
            m.submodules[f"select_{number}"] = select = SparseMultiplexer()
            m.submodules[f"cell_{number}"] = cell = PairMac(spec.multiplier)
            m.d.comb += [
                select.enable.eq(1),
                select.index.eq(beat.indices[number]),
                select.first.eq(beat.activations),
                select.second.eq(beat.other_activations),
                cell.enable.eq(1),
            ]
            weights = Cat(beat.weights[number], beat.other_weights[number])
            weights = delays(m, f"weights_{number}", weights, 1)[1]
            weight, other_weight = weights[:OPERAND_BITS], weights[OPERAND_BITS:]
            # d, b and a: the low lane is weight * activation in both modes.
            operands = Mux(
                two_weights,
                Cat(weight, select.chosen, other_weight),
                Cat(select.chosen, weight, select.other),
            )
            late = delays(m, f"operands_{number}", operands, spec.skew[number])[-1]
            m.d.comb += Cat(cell.d, cell.b, cell.a).eq(late)

            if below is None:
                m.d.comb += cell.start.eq(Start.ZERO)
            else:
                m.d.comb += cell.cascade_in.eq(below.cascade_out)
                through = Start.WORD if number in spec.adjusted_cells else Start.CASCADE
                start = Value.cast(through)
                if number % spec.group == 0:
                    broken = self._broken(breaks[spec.skew[number]], number // spec.group - 1)
                    start = Mux(broken, Value.cast(Start.ZERO), start)
                m.d.comb += Value.cast(cell.start).eq(start)
            if number in spec.adjusted_cells:
                rest = self._adjust(m, number, ends[-1])
                # The slice's own register is one of these cycles.
                fabric = delays(m, f"rest_{number}", rest, spec.adjust_registers - 1)
                m.d.comb += cell.word.eq(fabric[-1])
            if (number + 1) % spec.group == 0:
                ends.append(cell.p)
            below = cell
        return ends

    def _adjust(self, m: Module, number: int, word: Value) -> Value:
        """The overflow adjust unit in front of a cell; `_nodes` connects what is pending."""
        unit = OverflowAdjust(self.spec)
        m.submodules[f"adjust_{number}"] = unit
        m.d.comb += unit.word.eq(word)
        return unit.rest

    def _nodes(
        self, m: Module, words: list[Value], breaks: list[Value]
    ) -> list[tuple[Value, Value]]:
        """Reduction nodes, and what is pending between them; the outputs, all in the same cycle."""
        spec = self.spec
        outputs: list[tuple[Value, Value]] = []
        pending: Any = Signal(pending_layout(spec), name="pending_0")
        for group, word in enumerate(words):
            m.submodules[f"node_{group}"] = node = ReductionNode(spec)
            m.d.comb += [
                node.enable.eq(1),
                node.word.eq(word),
                node.pending.eq(pending),
            ]
            late = spec.node_times[-1] - spec.node_times[group]
            sums = delays(m, f"sums_{group}", Cat(node.low, node.high), late)[-1]
            half = spec.output_bits
            outputs.append((sums[:half].as_signed(), sums[half:].as_signed()))
            if group + 1 == spec.outputs:
                break
            behind: Any = pending
            if (group + 1) * spec.group < min(spec.adjusted_cells, default=spec.cells):
                continue
            if (group + 1) * spec.group in spec.adjusted_cells:
                unit: Any = m.submodules[f"adjust_{(group + 1) * spec.group}"]
                m.d.comb += unit.earlier.eq(pending)
                behind = unit.pending
            broken = self._broken(breaks[spec.node_times[group]], group)
            apart = spec.node_times[group + 1] - spec.node_times[group]
            later = delays(m, f"pending_{group}", carried_on(broken, behind), apart)[-1]
            pending = Signal(pending_layout(spec), name=f"pending_{group + 1}")
            m.d.comb += Value.cast(pending).eq(later)
        return outputs


class Chain(wiring.Component):
    """A `ChainDatapath` between streams, with a FIFO behind it for all beats that are under way.

    A beat is accepted only where its result is sure of a place: nothing stops the datapath. One beat a
    cycle, latency `ChainSpec.latency` + `QUEUE_LATENCY`.

    Parameters
    ----------
    spec : ChainSpec
        Geometry, operands, multiplier.

    Members
    -------
    i : In(stream.Signature(chain_input_layout(spec)))
        Beats.
    o : Out(stream.Signature(chain_output_layout(spec)))
        What they yield.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, spec: ChainSpec) -> None:
        self.spec = spec
        super().__init__({
            "i": In(stream.Signature(chain_input_layout(spec))),
            "o": Out(stream.Signature(chain_output_layout(spec))),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.datapath = datapath = ChainDatapath(self.spec)
        # A place is taken from acceptance until the cycle behind the one in which the result leaves.
        depth = 1 << (self.spec.latency + QUEUE_LATENCY).bit_length()
        m.submodules.results = results = ResultQueue(chain_output_layout(self.spec).size, depth)
        room = Signal(range(depth + 1), init=depth)
        later = Signal.like(room)
        free = Signal(init=1)
        accepted = Signal()
        m.d.comb += [
            self.i.ready.eq(free),
            accepted.eq(self.i.valid & free),
            datapath.beat.eq(self.i.payload),
            datapath.valid.eq(accepted),
            results.result.eq(datapath.result),
            results.done.eq(datapath.done),
            Value.cast(self.o.payload).eq(results.payload),
            self.o.valid.eq(results.valid),
            results.ready.eq(self.o.ready),
            later.eq(room + results.taken - accepted),
        ]
        m.d.sync += [room.eq(later), free.eq(later.any())]
        return m
