"""What a model needs of the vector unit, as sequences of its operations, against float64."""

import struct

import numpy as np
import numpy.typing as npt
import pytest

from emulator.state import MachineState
from emulator.units import vector
from hw.spec.functions import Function
from hw.spec.instructions import Reduce, Source, Target, Unit, operation_fields
from hw.spec.machine_file import load_machine

LOG2_E = 1.4426950408889634
TOLERANCE = 1e-5

Doubles = npt.NDArray[np.float64]


def bits(value: float) -> int:
    """FP32 pattern of a constant."""
    return struct.unpack("<I", struct.pack("<f", value))[0]


class Sequence:
    """Runs operations of one row on a machine; vectors are named by their first buffer row."""

    def __init__(self, target: str, length: int) -> None:
        self.state = MachineState(load_machine(target))
        self.length = length
        self.lanes = self.state.spec.lanes

    def put(self, buffer: npt.NDArray[np.float32], row: int, values: Doubles) -> Doubles:
        """Store values as FP32; returns what was stored."""
        stored = values.astype(np.float32)
        buffer.reshape(-1)[row * self.lanes :][: len(values)] = stored
        return stored.astype(np.float64)

    def get(self, row: int) -> Doubles:
        return self.state.vector.reshape(-1)[row * self.lanes :][: self.length].astype(np.float64)

    def do(self, **values: int | float) -> None:
        """One operation; constants of B and C are given as floats."""
        fields = {name: 0 for name, _ in operation_fields(Unit.SFU)}
        fields |= {"rows": 1, "length": self.length, "a_source": int(Source.VECTOR)}
        for name, value in values.items():
            fields[name] = bits(value) if name.endswith("constant") else int(value)
        vector.execute(self.state, fields)

    def do_scalar(self, **values: int | float) -> None:
        """One operation on scalars: A is an entry, so is D."""
        self.do(a_source=Source.SCALAR, target=Target.SCALAR, **({"length": 1} | values))


@pytest.fixture(params=["tiny", "small"])
def target(request: pytest.FixtureRequest) -> str:
    return request.param


def assert_close(found: Doubles, wanted: Doubles, scale: Doubles | None = None) -> None:
    """Within TOLERANCE of `scale`, element by element; of `wanted` itself unless told."""
    error = np.abs(found - wanted) / np.abs(wanted if scale is None else scale)
    assert error.max() < TOLERANCE, f"relative error {error.max():.2e}"


@pytest.mark.parametrize("length", [352, 128, 5])
@pytest.mark.parametrize("size", [0.02, 1.0, 30.0])
def test_rms_norm(target: str, length: int, size: float) -> None:
    rng = np.random.default_rng(1)
    run = Sequence(target, length)
    x = run.put(run.state.vector, 0, rng.normal(0, size, length))
    weight = run.put(run.state.input, 0, rng.normal(1, 0.2, length))
    epsilon = float(np.float32(1e-5))
    run.do(b_source=Source.VECTOR, reduce=Reduce.SUM, reduce_entry=0)
    run.do_scalar(
        a=0,
        b_source=Source.CONSTANT,
        b_constant=1 / length,
        c_source=Source.CONSTANT,
        c_constant=epsilon,
        function=Function.RECIPROCAL_SQUARE_ROOT.value,
        d=1,
    )
    run.do(b_source=Source.SCALAR, b=1, target=Target.VECTOR, d=256)
    run.do(a=256, b_source=Source.INPUT, target=Target.VECTOR, d=256)
    assert_close(run.get(256), x / np.sqrt((x * x).mean() + epsilon) * weight)


@pytest.mark.parametrize("length", [1, 77, 512])
@pytest.mark.parametrize("size", [0.1, 1.0, 6.0])
def test_softmax(target: str, length: int, size: float) -> None:
    rng = np.random.default_rng(2)
    run = Sequence(target, length)
    x = run.put(run.state.vector, 0, rng.normal(0, size, length))
    run.do(reduce=Reduce.MAXIMUM, reduce_entry=0)
    run.do_scalar(a=0, b_source=Source.CONSTANT, b_constant=-LOG2_E, d=1)
    run.do(
        b_source=Source.CONSTANT,
        b_constant=LOG2_E,
        c_source=Source.SCALAR,
        c=1,
        function=Function.EXPONENTIAL2.value,
        target=Target.VECTOR,
        d=0,
        reduce=Reduce.SUM,
        reduce_entry=2,
    )
    run.do_scalar(a=2, function=Function.RECIPROCAL.value, d=3)
    run.do(b_source=Source.SCALAR, b=3, target=Target.VECTOR, d=0)
    power = np.exp(x - x.max())
    assert_close(run.get(0), power / power.sum())


def test_gated_silu(target: str) -> None:
    rng = np.random.default_rng(3)
    run = Sequence(target, 352)
    gate = run.put(run.state.result, 0, rng.normal(0, 4, 352))
    up = run.put(run.state.result, 256, rng.normal(0, 2, 352))
    run.do(
        a_source=Source.RESULT,
        b_source=Source.CONSTANT,
        b_constant=-LOG2_E,
        function=Function.EXPONENTIAL2.value,
        target=Target.VECTOR,
        d=0,
    )
    run.do(
        a=0,
        c_source=Source.CONSTANT,
        c_constant=1.0,
        function=Function.RECIPROCAL.value,
        target=Target.VECTOR,
        d=0,
    )
    run.do(b_source=Source.RESULT, target=Target.VECTOR, d=0)
    run.do(b_source=Source.RESULT, b=256, target=Target.VECTOR, d=0)
    assert_close(run.get(0), gate / (1 + np.exp(-gate)) * up)


def test_rotary_embedding(target: str) -> None:
    rng = np.random.default_rng(4)
    half = 16
    run = Sequence(target, half)
    low = run.put(run.state.result, 0, rng.normal(0, 2, half))
    high = run.put(run.state.result, 8, rng.normal(0, 2, half))
    angle = 1000 * 10000.0 ** (-np.arange(half) / half)
    cosine = run.put(run.state.input, 0, np.cos(angle))
    sine = run.put(run.state.input, 8, np.sin(angle))
    run.put(run.state.input, 16, -np.sin(angle))
    for x, y, wave, d in ((0, 8, 16, 0), (8, 0, 8, 8)):
        run.do(
            a_source=Source.RESULT, a=y, b_source=Source.INPUT, b=wave, target=Target.VECTOR, d=32
        )
        run.do(
            a_source=Source.RESULT,
            a=x,
            b_source=Source.INPUT,
            b=0,
            c_source=Source.VECTOR,
            c=32,
            target=Target.VECTOR,
            d=d,
        )
    scale = np.hypot(low, high)
    assert_close(run.get(0), low * cosine - high * sine, scale)
    assert_close(run.get(8), high * cosine + low * sine, scale)


@pytest.mark.parametrize("size", [1e-3, 1.0, 500.0])
def test_quantize(target: str, size: float) -> None:
    rng = np.random.default_rng(5)
    length = 300
    run = Sequence(target, length)
    x = run.put(run.state.vector, 0, rng.normal(0, size, length))
    run.do(reduce=Reduce.MAGNITUDE, reduce_entry=0)
    run.do(
        a_source=Source.SCALAR,
        b_source=Source.CONSTANT,
        b_constant=1 / 127,
        length=1,
        target=Target.MATRIX_SCALE,
        d=2,
    )
    run.do_scalar(
        a=0,
        b_source=Source.CONSTANT,
        b_constant=1 / 127,
        function=Function.RECIPROCAL.value,
        d=1,
    )
    run.do(b_source=Source.SCALAR, b=1, target=Target.ACTIVATION, d=3)
    scale = np.abs(x).max() / 127
    assert_close(run.state.matrix_scales[2:3].astype(np.float64), np.array([scale]))
    integers = run.state.activation[3 * run.lanes :][:length].astype(np.float64)
    # Nearest integer of what is within the tolerance: only ties may fall to the other side.
    assert np.abs(integers - x / scale).max() <= 0.5 + 127 * TOLERANCE
    assert np.abs(integers).max() == 127
