"""A whole gpt-oss on the grid of chips, bit for bit: who has which part, and what links do to it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emulator.hardwired_system.machine import Partition, Reduction, SystemMachine
from emulator.hardwired_system.numerics import (
    Doubles,
    Floats,
    Integers,
    Wires,
    all_gather,
    exponential,
    mean_square,
    quantize,
    reduce_scatter,
    shared,
    sigmoid,
)
from emulator.numerics.functions import reciprocal, reciprocal_square_root
from hw.spec.errors import InputError

PROBABILITY_BITS = 16
QUERY_BITS = 16
SUM_STEPS = float(1 << 24)


@dataclass(frozen=True)
class Linear:
    """A hardwired matrix with its bias."""

    wires: Wires
    bias: Floats


@dataclass(frozen=True)
class Layer:
    """The weights of one layer; `gate_up` and `down` have one matrix an expert."""

    input_norm: Floats
    post_norm: Floats
    queries: Linear
    keys: Linear
    values: Linear
    output: Linear
    sinks: Floats
    router: Linear
    gate_up: tuple[Linear, ...]
    down: tuple[Linear, ...]
    window: int | None


@dataclass(frozen=True)
class HardwiredModel:
    """A gpt-oss as wires, tables and norms.

    Members
    -------
    cosine, sine : float32 [positions, head_dim / 2]
    """

    name: str
    embedding: Floats
    layers: tuple[Layer, ...]
    norm: Floats
    head: Wires
    cosine: Floats
    sine: Floats
    heads: int
    kv_heads: int
    experts_per_token: int
    eps: float
    alpha: float
    limit: float


class HardwiredForward:
    """The forward pass of a machine of chips.

    Parameters
    ----------
    model : HardwiredModel
    machine : SystemMachine
        Grid, partition, reduction and widths; its times do not matter here.

    Raises
    ------
    InputError
        If the model does not divide among the chips.
    """

    def __init__(self, model: HardwiredModel, machine: SystemMachine) -> None:
        self.model, self.machine = model, machine
        hidden, chips = model.embedding.shape[1], machine.chips
        for what, count, parts in (
            ("hidden size", hidden, chips * 2),
            ("heads", model.heads, machine.columns),
            ("key and value heads", model.kv_heads, machine.columns),
            ("experts", len(model.layers[0].gate_up), chips),
        ):
            if count % parts:
                raise InputError(
                    f"{model.name}: {what}: expected a multiple of {parts} for {machine.rows} x "
                    f"{machine.columns} chips, found {count}"
                )

    def logits(self, tokens: Sequence[int] | npt.NDArray[np.integer]) -> Floats:
        """Return logits [T, vocabulary] of a text from its beginning."""
        stream = self.model.embedding[np.asarray(tokens)]
        for layer in self.model.layers:
            stream = self._add(stream, self._attention(layer, self._norm(stream, layer.input_norm)))
            stream = self._add(stream, self._experts(layer, self._norm(stream, layer.post_norm)))
        inputs, scale = quantize(self._norm(stream, self.model.norm))
        sums = self.model.head.multiply(inputs).astype(np.float64)
        return (np.ldexp(sums, self.model.head.exponent) * scale).astype(np.float32)

    @staticmethod
    def _add(a: Floats, b: Doubles) -> Floats:
        return (a + b.astype(np.float32)).astype(np.float32)

    def _norm(self, x: Floats, weight: Floats) -> Floats:
        root = reciprocal_square_root(mean_square(x) + np.float32(self.model.eps))
        return ((x * root).astype(np.float32) * weight).astype(np.float32)

    def _real(self, linear: Linear, sums: Doubles, scale: Floats) -> Floats:
        values = (np.ldexp(sums, linear.wires.exponent) * scale).astype(np.float32)
        return (values + linear.bias).astype(np.float32)

    def _rows_of_chips(self, linear: Linear, inputs: Integers, scale: Floats) -> Floats:
        """Q, K or V: each row of chips has a part of the inputs; a column sums its own outputs."""
        machine, tokens = self.machine, len(inputs)
        step = inputs.shape[1] // machine.rows
        partial = np.stack([
            linear.wires.part(row * step, step).multiply(inputs[:, row * step : (row + 1) * step])
            for row in range(machine.rows)
        ]).astype(np.float64)
        split = partial.reshape(machine.rows, tokens, machine.columns, -1)
        total = reduce_scatter(split, machine.partial_sum_bits)
        if machine.partition is Partition.POSITIONS:
            total = all_gather(total, machine.rows, max(16, machine.activation_bits))
        return self._real(linear, total.reshape(tokens, -1), scale)

    def _attention(self, layer: Layer, x: Floats) -> Doubles:
        model, tokens = self.model, len(x)
        inputs, scale = quantize(x)

        def heads(linear: Linear) -> Floats:
            flat = self._rows_of_chips(linear, inputs, scale)
            return flat.reshape(tokens, -1, model.cosine.shape[1] * 2).swapaxes(0, 1)

        queries = self._rotate(heads(layer.queries))
        keys, values = self._rotate(heads(layer.keys)), heads(layer.values)
        output = self._attend(layer, queries, keys, values)
        return self._output(layer, output)

    def _rotate(self, x: Floats) -> Floats:
        tokens, half = x.shape[1], x.shape[2] // 2
        cosine, sine = self.model.cosine[:tokens], self.model.sine[:tokens]
        first, second = x[..., :half], x[..., half:]

        def difference(a: Floats, b: Floats) -> Floats:
            return (a.astype(np.float32) - b.astype(np.float32)).astype(np.float32)

        turned = [
            difference(first * cosine, second * sine),
            difference(second * cosine, -(first * sine)),
        ]
        return np.concatenate(turned, axis=-1)

    def _attend(self, layer: Layer, queries: Floats, keys: Floats, values: Floats) -> Floats:
        """Output [T, heads, head_dim] of attention; chips of a column have every fourth position each."""
        model, machine, tokens = self.model, self.machine, queries.shape[1]
        group = model.heads // model.kv_heads
        q, q_exponent = shared(queries, QUERY_BITS)
        k, k_exponent = (np.repeat(a, group, axis=0) for a in shared(keys, machine.kv_bits))
        v, v_exponent = (np.repeat(a, group, axis=0) for a in shared(values, machine.kv_bits))
        # Whole numbers below 2**53: exact in any order.
        scores = np.ldexp(q @ k.swapaxes(1, 2), q_exponent + k_exponent.swapaxes(1, 2))
        scores = (scores * queries.shape[2] ** -0.5).astype(np.float32)
        distance = np.arange(tokens)[:, None] - np.arange(tokens)
        visible = distance >= 0
        if layer.window is not None:
            visible &= distance < layer.window
        parts = machine.rows if machine.partition is Partition.POSITIONS else 1
        owner = np.arange(tokens) % parts
        sinks = layer.sinks[:, None, None]
        # The largest of all chips of the column: statistics go round before anything is scaled.
        seen = np.where(visible, scores, -np.inf)
        highest = np.maximum(seen.max(axis=2, keepdims=True), sinks).astype(np.float32)
        total = np.rint(exponential((sinks - highest).astype(np.float32)) * SUM_STEPS)
        outputs = []
        everybody = np.where(visible, exponential(np.where(visible, scores - highest, 0)), 0)
        for part in range(parts):
            powers = np.where(owner == part, everybody, 0)
            total = total + np.rint(powers * SUM_STEPS).sum(axis=2, keepdims=True)
            weights, w_exponent = shared(
                np.ldexp(powers.astype(np.float64), v_exponent.swapaxes(1, 2)), PROBABILITY_BITS
            )
            outputs.append(np.ldexp(weights @ v, w_exponent))
        if parts == 1:
            summed = outputs[0]
        else:
            split = np.stack(outputs).swapaxes(1, 2)
            split = split.reshape(parts, tokens, machine.columns, -1)
            summed = reduce_scatter(split, machine.partial_sum_bits)
            summed = summed.reshape(tokens, model.heads, -1).swapaxes(0, 1)
        share = reciprocal((total / SUM_STEPS).astype(np.float32))
        return (summed.astype(np.float32) * share).astype(np.float32).swapaxes(0, 1)

    def _output(self, layer: Layer, output: Floats) -> Doubles:
        """Wo: each column of chips has its heads as inputs, each row a part of the outputs."""
        machine, tokens = self.machine, len(output)
        split = output.reshape(tokens, machine.columns, -1)
        if machine.reduction is Reduction.REPEATED:
            # A sixteenth each goes round the column before it is quantized.
            whole = all_gather(split.astype(np.float64), machine.rows, machine.activation_bits)
            split = whole.astype(np.float32)
        wires, step = layer.output.wires, split.shape[2]
        partial = []
        for column in range(machine.columns):
            inputs, scale = quantize(split[:, column])
            sums = wires.part(column * step, step).multiply(inputs).astype(np.float64)
            partial.append(np.ldexp(sums, wires.exponent) * scale)
        rows = np.stack(partial).reshape(machine.columns, tokens, machine.rows, -1)
        total = reduce_scatter(rows, machine.partial_sum_bits)
        if machine.reduction is Reduction.REPEATED:
            total = all_gather(total, machine.columns, machine.activation_bits)
            total = all_gather(total.reshape(tokens, -1), machine.rows, machine.activation_bits)
        return total.reshape(tokens, -1) + layer.output.bias

    def _experts(self, layer: Layer, x: Floats) -> Doubles:
        model, machine, tokens = self.model, self.machine, len(x)
        inputs, scale = quantize(x)
        scores = self._real(
            layer.router, layer.router.wires.multiply(inputs).astype(np.float64), scale
        )
        chosen = np.argsort(-scores, axis=1, kind="stable")[:, : model.experts_per_token]
        best = np.take_along_axis(scores, chosen, axis=1)
        powers = exponential((best - best[:, :1]).astype(np.float32))
        total = np.rint(powers * SUM_STEPS).sum(axis=1, keepdims=True) / SUM_STEPS
        shares = (powers * reciprocal(total.astype(np.float32))).astype(np.float32)
        chips = np.zeros((machine.chips, tokens, x.shape[1]))
        each = len(layer.gate_up) // machine.chips
        for expert in np.unique(chosen):
            rows, ranks = np.nonzero(chosen == expert)
            output = self._expert(layer, int(expert), inputs[rows], scale[rows])
            weighed = (output * shares[rows, ranks, None]).astype(np.float32)
            own = chips[expert // each]
            own[rows] = (own[rows] + weighed).astype(np.float32)
        return self._sum_over_grid(chips)

    def _expert(self, layer: Layer, expert: int, inputs: Integers, scale: Floats) -> Floats:
        first, second = layer.gate_up[expert], layer.down[expert]
        both = self._real(first, first.wires.multiply(inputs).astype(np.float64), scale)
        limit = np.float32(self.model.limit)
        gate = np.minimum(both[:, ::2], limit)
        up = np.clip(both[:, 1::2], -limit, limit)
        slope = sigmoid((gate * np.float32(self.model.alpha)).astype(np.float32))
        hidden = ((gate * slope).astype(np.float32) * (up + np.float32(1))).astype(np.float32)
        values, inner = quantize(hidden)
        return self._real(second, second.wires.multiply(values).astype(np.float64), inner)

    def _sum_over_grid(self, chips: Doubles) -> Doubles:
        """All-chip sum of [chips, T, hidden], by the machine's reduction."""
        machine = self.machine
        bits, width = machine.partial_sum_bits, chips.shape[2]
        grid = chips.reshape(machine.rows, machine.columns, -1, width)
        if machine.reduction is Reduction.REPEATED:
            rows = [all_gather(reduce_scatter(row, bits), machine.columns, bits) for row in grid]
            total = reduce_scatter(np.stack(rows), bits)
            return all_gather(total, machine.rows, machine.activation_bits)
        halves = []
        for half, first in ((grid[..., : width // 2], 0), (grid[..., width // 2 :], 1)):
            lines = half if first == 0 else half.swapaxes(0, 1)
            sums = np.stack([reduce_scatter(line, bits) for line in lines])
            # Each chip goes on with its own part: what it then sends are parts of that.
            parts = sums.reshape(*sums.shape[:2], lines.shape[1], -1)
            halves.append(reduce_scatter(parts, bits).reshape(sums.shape[1], -1))
        return np.concatenate(halves, axis=-1)
