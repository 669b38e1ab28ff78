"""Decoders and aligners at the edges of an array: every input, against the values that codes stand for."""

from collections.abc import Iterable, Mapping

import numpy as np
from amaranth.hdl import Elaboratable
from amaranth.sim import Simulator

from hw.pe.edge import Aligner, FlintDecoder, OliveDecoder, RowSum, TermDecoder, ZeroSubtractor

FLINT = [0, 1, 2, 3, 4, 6, 8, 16]
OUTLIERS = [0, 12, 16, 24, 32, 48, 64, 96]
TWICE_E2M1 = [0, 1, 2, 3, 4, 6, 8, 12]


def settle(dut: Elaboratable, vectors: Iterable[Mapping[str, int]], *outputs: str) -> list[tuple]:
    """Outputs of a combinational circuit for each set of inputs."""
    seen = []

    async def bench(ctx) -> None:
        for vector in vectors:
            for name, value in vector.items():
                ctx.set(getattr(dut, name), value)
            await ctx.delay(1e-6)
            seen.append(tuple(ctx.get(getattr(dut, name)) for name in outputs))

    simulator = Simulator(dut)
    simulator.add_testbench(bench)
    simulator.run()
    return seen


def decoded(code: int) -> int:
    integer = code & 15
    return (integer - (integer >> 3 << 4)) << (code >> 4)


def test_flint() -> None:
    seen = settle(FlintDecoder(), [{"i": code} for code in range(16)], "o")
    wanted = [-FLINT[code & 7] if code & 8 else FLINT[code & 7] for code in range(16)]
    assert [decoded(o) for (o,) in seen] == wanted


def test_olive() -> None:
    def value(own: int, other: int) -> int:
        if other == 8:
            return -OUTLIERS[own & 7] if own & 8 else OUTLIERS[own & 7]
        return 0 if own == 8 else own - (own >> 3 << 4)

    pairs = [(a, b) for a in range(16) for b in range(16) if (a, b) != (8, 8)]
    seen = settle(OliveDecoder(), [{"a": a, "b": b} for a, b in pairs], "a_o", "b_o")
    wanted = [(value(a, b), value(b, a)) for a, b in pairs]
    assert [(decoded(a), decoded(b)) for a, b in seen] == wanted


def test_terms_add_up_to_the_value() -> None:
    specials = [10, -10, 16, -16]
    vectors = [
        {"code": code, "special": special, "second": second}
        for code in range(16)
        for special in range(4)
        for second in range(2)
    ]
    seen = [o for (o,) in settle(TermDecoder(), vectors, "o")]
    for i in range(0, len(vectors), 2):
        terms = [(-1 if o & 16 else 1) * (1 << (o & 7)) if o & 8 else 0 for o in seen[i : i + 2]]
        code, special = vectors[i]["code"], vectors[i]["special"]
        wanted = -TWICE_E2M1[code & 7] if code & 8 else TWICE_E2M1[code & 7]
        assert sum(terms) == (specials[special] if code == 8 else wanted)


def test_zero_points() -> None:
    pairs = [(q, z) for q in range(16) for z in range(16)]
    seen = settle(ZeroSubtractor(), [{"q": q, "z": z} for q, z in pairs], "o")
    assert [o for (o,) in seen] == [q - z for q, z in pairs]


def test_aligner_and_row_sum() -> None:
    rng = np.random.default_rng(1)
    numbers = rng.normal(0, 4, 300).astype(np.float16)
    numbers[::17] = 0
    numbers[5::29] = 3e-7
    for width in (12, 14, 24):
        dut = Aligner(width)
        bits = numbers.view(np.uint16).astype(int)
        top = int((bits >> 10 & 31).max())
        # In units of the integer's last place, cut towards zero.
        unit = 2.0 ** (top - 15 - (width - 2))
        wanted = np.trunc(numbers.astype(float) / unit).astype(int)
        running = np.maximum.accumulate(np.maximum(bits >> 10 & 31, 1))

        async def bench(ctx, dut=dut, bits=bits, top=top, wanted=wanted, running=running) -> None:
            ctx.set(dut.exponent, top)
            for i, value in enumerate(bits):
                ctx.set(dut.i, int(value))
                ctx.set(dut.first, i == 0)
                await ctx.tick()
                assert ctx.get(dut.o) == wanted[i]
                assert ctx.get(dut.largest) == running[i]

        simulator = Simulator(dut)
        simulator.add_clock(1e-6)
        simulator.add_testbench(bench)
        simulator.run()


def test_row_sum() -> None:
    dut = RowSum()
    values = np.random.default_rng(2).integers(-128, 128, 256)

    async def bench(ctx) -> None:
        total = 0
        for i, value in enumerate(values):
            ctx.set(dut.i, int(value))
            ctx.set(dut.clear, i % 128 == 0)
            await ctx.tick()
            total = int(value) if i % 128 == 0 else total + int(value)
            assert ctx.get(dut.o) == total

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
