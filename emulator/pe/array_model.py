"""Cycles, traffic and energy of matrix products on an output-stationary array, in closed form.

A tile of R x C outputs needs one beat for each of its products along K, less where an element takes
several a cycle. A group's sums leave through shadow registers while the next group is summed, which hides
them if the group has at least R beats for each column that shares a dequantization unit; without shadow
registers the array waits R cycles instead. Filling and draining the skew costs ``R + C - 2`` cycles once
a product. Memory: one operand stays in its buffer while the other streams, whichever moves less.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["ArrayModel", "MemoryModel", "Product", "Traffic", "product_cycles", "traffic"]


@dataclass(frozen=True)
class Product:
    """``[m, k] x [k, n]``, `count` times; `of_activations` where both operands are activations."""

    m: int
    k: int
    n: int
    count: int = 1
    of_activations: bool = False

    @property
    def macs(self) -> int:
        """Products of numbers, all counts together."""
        return self.m * self.k * self.n * self.count


@dataclass(frozen=True)
class MemoryModel:
    """Buffers and main memory; defaults are published, of the public simulator of MixPE.

    Parameters
    ----------
    bytes_per_cycle : float
        64 GB/s at 500 MHz.
    weight_buffer_bytes, activation_buffer_bytes : int
        Half of each is in use while the other half is filled.
    """

    bytes_per_cycle: float = 128.0
    weight_buffer_bytes: int = 128 << 10
    activation_buffer_bytes: int = 256 << 10


@dataclass(frozen=True)
class ArrayModel:
    """An array as far as time depends on it.

    Parameters
    ----------
    rows, columns : int
        Elements.
    products_per_cycle : float
        Of one element.
    group : int or None
        Products to a sum that is dequantized; None: one sum over all of K.
    shadow : bool
        Sums leave while the next are made.
    columns_per_unit : int
        Columns that share a dequantization unit.
    passes : int
        Passes for a product of two activations.
    weight_bits, activation_bits : float
        Of one number in memory, scales included.
    memory : MemoryModel
        What is around it.
    """

    rows: int
    columns: int
    products_per_cycle: float
    group: int | None
    shadow: bool
    columns_per_unit: int
    passes: int
    weight_bits: float
    activation_bits: float
    memory: MemoryModel = field(default_factory=MemoryModel)


def product_cycles(array: ArrayModel, product: Product) -> float:
    """Cycles of computation of all counts of a product.

    Parameters
    ----------
    array : ArrayModel
        The array; a group with fewer beats than its sums need to leave is stretched.
    """
    tiles = -(-product.m // array.rows) * -(-product.n // array.columns)
    group = product.k if array.group is None else min(array.group, product.k)
    leave = array.rows * array.columns_per_unit
    whole, rest = divmod(product.k, group)
    beats = 0.0
    for length, times in ((group, whole), (rest, 1 if rest else 0)):
        compute = -(-length // array.products_per_cycle)
        beats += times * (max(compute, leave) if array.shadow else compute + leave)
    passes = array.passes if product.of_activations else 1
    return product.count * passes * (tiles * beats + array.rows + array.columns - 2)


@dataclass(frozen=True)
class Traffic:
    """Bits moved: main memory read and written, weight and activation buffers read, outputs written."""

    memory_read: float
    memory_write: float
    weight_reads: float
    activation_reads: float
    outputs: float


def traffic(array: ArrayModel, product: Product) -> Traffic:
    """Bits that all counts of a product move; outputs are 16 bits each."""
    bits = array.activation_bits if product.of_activations else array.weight_bits
    weights, activations = (
        product.k * product.n * bits,
        product.m * product.k * array.activation_bits,
    )
    weight_room = array.memory.weight_buffer_bytes * 8 / 2
    activation_room = array.memory.activation_buffer_bytes * 8 / 2
    outputs = product.m * product.n * 16.0
    read = min(
        activations + weights * max(1.0, activations / activation_room),
        weights + activations * max(1.0, weights / weight_room),
    )
    tiles = -(-product.m // array.rows) * -(-product.n // array.columns)
    passes = array.passes if product.of_activations else 1
    return Traffic(
        memory_read=product.count * read,
        memory_write=product.count * outputs,
        weight_reads=product.count * passes * tiles * product.k * array.columns * bits,
        activation_reads=product.count * tiles * product.k * array.rows * array.activation_bits,
        outputs=product.count * outputs,
    )


def total_cycles(array: ArrayModel, products: Sequence[Product]) -> float:
    """Cycles of a list of products; each takes as long as its computation or its memory, if longer."""
    cycles = 0.0
    for product in products:
        moved = traffic(array, product)
        memory = (moved.memory_read + moved.memory_write) / 8 / array.memory.bytes_per_cycle
        cycles += max(product_cycles(array, product), memory)
    return cycles
