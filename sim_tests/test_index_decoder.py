"""Runs the bench of the index decoder, and checks the packing that it undoes."""

import pytest

from emulator.numerics.chain import packed_indices
from hw.core.index_decoder import (
    LATENCY,
    IndexDecoder,
    decoder_input_layout,
    decoder_output_layout,
)
from hw.spec.chain import IndexFormat, metadata_bits
from sim_tests.bench import layout_fields, run_bench


def test_index_decoder() -> None:
    layouts = [layout_fields(f(1)) for f in (decoder_input_layout, decoder_output_layout)]
    result = run_bench(
        "index_decoder",
        IndexDecoder,
        "sim_tests.bench_index_decoder",
        parameters={"layouts": layouts, "latency": LATENCY},
    )
    assert result.tests == 10


@pytest.mark.parametrize(
    "index_format, kept, indices",
    [
        (IndexFormat.BITMAP, 8, [7, 6, 5, 4, 3, 2, 1, 0] * 2),
        (IndexFormat.BITMAP, 4, [0, 1, 2, 2] * 4),
        (IndexFormat.TWO_OF_FOUR, 8, [0, 1, 2, 3, 8, 9, 12, 13] * 2),
        (IndexFormat.DENSE, 16, [1, *range(1, 16)]),
        (IndexFormat.INDEX, 2, [16, 0] * 8),
    ],
)
def test_what_a_format_cannot_express_is_refused(
    index_format: IndexFormat, kept: int, indices: list[int]
) -> None:
    with pytest.raises(ValueError, match="cannot express"):
        packed_indices(index_format, kept, indices)


def test_smallest_format_by_density() -> None:
    """Bitmaps are smaller for 8:16, as large for 4:16; what they would be for 2:16 is not a format."""
    bits = {
        (f, n): metadata_bits(f, n) for n in (4, 8) for f in (IndexFormat.INDEX, IndexFormat.BITMAP)
    }
    assert bits[IndexFormat.BITMAP, 8] == 32 < bits[IndexFormat.INDEX, 8] == 64
    assert bits[IndexFormat.BITMAP, 4] == bits[IndexFormat.INDEX, 4] == 64
    assert metadata_bits(IndexFormat.TWO_OF_FOUR, 8) == 32
    assert metadata_bits(IndexFormat.DENSE, 16) == 0
    for index_format, kept in ((IndexFormat.BITMAP, 2), (IndexFormat.TWO_OF_FOUR, 4)):
        with pytest.raises(ValueError, match="no .* format for"):
            metadata_bits(index_format, kept)
