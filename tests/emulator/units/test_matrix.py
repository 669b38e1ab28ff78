"""The matrix engine's golden model against the manual, element by element in Python integers."""

import zlib
from typing import Any

import numpy as np
import pytest

from emulator.errors import IllegalInstruction
from emulator.numerics.floating import from_integer, multiply
from emulator.state import MachineState
from emulator.units import matrix
from hw.spec.instructions import Unit, operation_fields
from hw.spec.machine import load_machine

SPECS = {name: load_machine(name) for name in ("tiny", "small")}


def operation(**values: int) -> dict[str, int]:
    """An instruction of one INT8 block, unless said otherwise."""
    fields = {name: 0 for name, _ in operation_fields(Unit.MPE)}
    return fields | {"wide": 1, "first": 1, "last": 1, "pop": 1, "blocks": 1, "steps": 1} | values


def random_state(target: str, seed: int) -> MachineState:
    """All buffers that the engine reads full of random bits."""
    rng = np.random.default_rng(seed)
    state = MachineState(SPECS[target])
    for buffer in (state.stream, state.scale_ring, state.activation.view(np.uint8)):
        buffer[...] = rng.integers(0, 256, buffer.shape, np.uint8)
    state.matrix_scales[:] = rng.normal(size=state.matrix_scales.shape).astype(np.float32)
    return state


def signed(value: int, bits: int) -> int:
    """Two's complement."""
    value &= (1 << bits) - 1
    return value - (value >> bits - 1 << bits)


def simple(state: MachineState, fields: dict[str, int]) -> dict[str, Any]:
    """What the manual says, one product at a time."""
    spec = state.spec
    stream = state.stream.reshape(-1).tolist()
    codes = state.scale_ring.view(np.uint16).tolist()
    elements, bits = (4, 8) if fields["wide"] else (8, 4)
    accumulators = [0 if fields["first"] else int(a) for a in state.accumulators]
    step, group = state.stream_read // 2, state.scale_read
    outputs = []
    for _ in range(fields["blocks"]):
        if fields["first"]:
            accumulators = [0] * spec.matrix_rows
        sums = [0] * spec.matrix_rows
        for s in range(fields["steps"]):
            for row in range(spec.matrix_rows):
                for e in range(elements):
                    byte = 2 * spec.word_bytes * step + 4 * row + e * bits // 8
                    weight = signed(stream[byte % len(stream)] >> e * bits % 8, bits)
                    index = 4 * fields["activation"] + s * elements + e
                    sums[row] += weight * int(state.activation[index % len(state.activation)])
            step += 1
            last = (
                (s + 1) % fields["group_steps"] == 0
                if fields["scaled"]
                else s + 1 == fields["steps"]
            )
            for row in range(spec.matrix_rows) if last else ():
                total, mantissa, shift, sign = signed(sums[row], 32), 1, 24, 0
                if fields["scaled"]:
                    code = codes[group % len(codes)][row]
                    exponent = code >> 10 & 31
                    mantissa = (code & 1023) + (1024 if exponent else 0)
                    shift, sign = max(exponent, 1) - 1, code >> 15
                addend = (-total if sign else total) * mantissa << shift
                accumulators[row] = signed(accumulators[row] + addend, 64)
                sums[row] = 0
            group += last and fields["scaled"]
        scale = state.matrix_scales[fields["scale"] % spec.matrix_scales]
        outputs += multiply(from_integer(np.array(accumulators), 24), scale).tolist()
    outputs = np.array(outputs, np.float32).reshape(-1, spec.lanes)
    result = state.result.copy()
    if fields["last"]:
        for row, values in enumerate(outputs):
            result[(fields["result"] + row) % len(result)] = values
    return {
        "accumulators": accumulators,
        "result": result.tobytes(),
        "stream_read": 2 * step if fields["pop"] else state.stream_read,
        "scale_read": group if fields["pop"] else state.scale_read,
        "checksum": zlib.crc32(outputs.tobytes()) if fields["last"] else 0,
    }


def compare(state: MachineState, fields: dict[str, int]) -> None:
    expected = simple(state, fields)
    checksum = matrix.execute(state, fields)
    assert state.accumulators.tolist() == expected["accumulators"]
    assert state.result.tobytes() == expected["result"]
    assert (state.stream_read, state.scale_read) == (
        expected["stream_read"],
        expected["scale_read"],
    )
    assert checksum == expected["checksum"]


@pytest.mark.parametrize("target", list(SPECS))
@pytest.mark.parametrize("seed", range(10))
def test_random_chains(target: str, seed: int) -> None:
    state = random_state(target, seed)
    rng = np.random.default_rng(seed)
    spec = state.spec
    state.stream_read = spec.stream_words - 6
    state.scale_read = spec.scale_words - 2
    for _ in range(12):
        group_steps = int(rng.integers(1, 4))
        fields = operation(
            wide=int(rng.integers(2)),
            scaled=int(rng.integers(2)),
            first=int(rng.integers(2)),
            last=int(rng.integers(2)),
            pop=int(rng.integers(2)),
            group_steps=group_steps,
            steps=group_steps * int(rng.integers(1, 4)),
            activation=2 * int(rng.integers(1 << 15)),
            result=int(rng.integers(1 << 16)) if rng.random() < 0.5 else spec.result_rows - 1,
            scale=int(rng.integers(1 << 16)),
        )
        if fields["first"] and fields["last"]:
            fields["blocks"] = int(rng.integers(1, 4))
        fields["activation"] += fields["wide"] & int(rng.integers(2))
        compare(state, fields)


def test_every_scale_code() -> None:
    state = random_state("small", 3)
    for begin in range(0, 1 << 16, 8192):
        state.scale_ring.view(np.uint16).reshape(-1)[:] = np.arange(begin, begin + 8192)
        compare(state, operation(scaled=1, group_steps=1, blocks=512))
    assert state.scale_read == 4096


@pytest.mark.parametrize("wide, steps", [(0, 2048), (0, 2049), (1, 256), (1, 257)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_long_groups_at_the_limits_of_exactness(wide: int, steps: int, sign: int) -> None:
    # The last product makes the sum odd: a type that rounds would show it.
    bits, elements = (8, 4) if wide else (4, 8)
    activations = np.full(elements * steps, 127 if sign > 0 else -128, np.int8)
    weights = np.zeros((1, 1, steps, 4, 4), np.uint8)
    weights[...] = 0x7F if wide else 0x77
    weights[0, 0, -1, :, 3] ^= 1 if wide else 0x10
    sums = matrix.group_sums(weights, activations.reshape(1, -1), bool(wide))
    largest = (1 << bits - 1) - 1
    expected = int(activations[0]) * (largest * len(activations) - 1)
    assert sums.reshape(-1).tolist() == [expected] * 4


def test_sums_wrap_at_32_and_accumulators_at_64_bits() -> None:
    state = random_state("tiny", 4)
    state.stream[:] = 0x80
    state.activation[:] = -128
    steps = 1 << 15
    fields = operation(steps=steps, scaled=1, group_steps=steps)
    state.scale_ring.view(np.uint16)[:] = 0x7FFF
    assert matrix.execute(state, fields)
    # 2**15 * 4 * 2**14 = 2**31, which wraps to the lowest number.
    lowest = -(1 << 31) * (2047 << 30)
    assert state.accumulators.tolist() == [signed(lowest, 64)] * 4
    fields["first"] = 0
    for count in range(2, 6):
        matrix.execute(state, fields)
        assert state.accumulators.tolist() == [signed(count * lowest, 64)] * 4


ILLEGAL = {
    "no block": {"blocks": 0},
    "no step": {"steps": 0},
    "blocks without first": {"blocks": 2, "first": 0},
    "blocks without last": {"blocks": 2, "last": 0},
    "no group": {"scaled": 1, "group_steps": 0},
    "group too long": {"scaled": 1, "steps": 2, "group_steps": 3},
    "group does not divide": {"scaled": 1, "steps": 5, "group_steps": 2},
    "INT4 from an odd unit": {"wide": 0, "activation": 1},
}


@pytest.mark.parametrize("fields", list(ILLEGAL.values()), ids=list(ILLEGAL))
def test_illegal_instructions_change_nothing(fields: dict[str, int]) -> None:
    state = random_state("tiny", 5)
    with pytest.raises(IllegalInstruction):
        matrix.execute(state, operation(**fields))
    assert (state.stream_read, state.scale_read) == (0, 0)
    assert not state.result.any() and not state.accumulators.any()


def test_sync_does_nothing() -> None:
    state = random_state("tiny", 6)
    assert matrix.execute(state, operation(sync=1, blocks=0)) == 0
    assert state.stream_read == 0
