"""The parts of a processor, their sum, and the comparison with a board."""

import json
import math
from dataclasses import replace

import pytest

from hw.spec.board import KINDS, Board, load_board
from hw.spec.design import (
    TABLE,
    check_fits,
    design_parts,
    design_resources,
    total_resources,
)
from hw.spec.errors import InputError
from hw.spec.machine_file import load_machine
from hw.spec.targets import list_targets

BOARDS = [name for name in list_targets() if load_board(name) is not None]
SPEC = load_machine("u280")


def board_of(name: str) -> Board:
    board = load_board(name)
    assert board is not None
    return board


@pytest.mark.parametrize("name", BOARDS)
def test_bundled_boards_hold_their_designs(name: str) -> None:
    spec, board = load_machine(name), board_of(name)
    found = check_fits(spec, board)
    assert all(0 <= found["used"][kind] <= found["available"][kind] for kind in KINDS)
    assert all(found["used"][kind] for kind in ("dsp", "lut", "ff", "bram"))
    # Only the store unit is too large to be synthesized as it is.
    assert found["source"] in {"synthesized", "synthesized (store extrapolated)"}


def test_multipliers_and_memories_are_those_of_the_geometry() -> None:
    """Counted another way: two products a slice, eight slots a row; bits of memory over bits of blocks."""
    used = total_resources(design_resources(SPEC))
    rows = {p.part.shape: p for p in design_resources(SPEC) if p.part.name == "matrix_row"}
    slices = sum(p.part.instances * p.each["dsp"] for p in rows.values())
    products = SPEC.multipliers * SPEC.matrix_columns * SPEC.cores
    assert slices == products / 2 - SPEC.cores * SPEC.logic_rows * SPEC.logic_slots
    bits = 8 * SPEC.word_bytes * SPEC.stream_words + 32 * SPEC.lanes * 3 * (
        SPEC.vector_rows + SPEC.result_rows
    )
    least = SPEC.cores * bits / (288 * 1024)
    assert least < used["uram"] < 1.5 * least


def test_each_resource_that_lacks_is_named_with_the_number() -> None:
    board, used = board_of("u280"), total_resources(design_resources(SPEC))
    small = replace(board, dsp=1000, uram=round(used["uram"]) - 3)
    with pytest.raises(InputError) as refusal:
        check_fits(SPEC, small)
    text = str(refusal.value)
    assert text.startswith("target u280: does not fit XCU280")
    assert f"DSP: needs {round(used['dsp']):,}, the board has 1,000 " in text
    assert f"({round(used['dsp']) - 1000:,} too few)" in text
    assert "URAM" in text
    assert "(3 too few)" in text
    assert "LUT" not in text


def test_sparse_multiplexers_do_not_fit_the_u280() -> None:
    """Their rows are synthesized too, so that nobody takes those without for them."""
    with pytest.raises(InputError, match=r"does not fit XCU280 .*: LUT: needs 1,7\d\d,\d\d\d"):
        check_fits(replace(SPEC, sparse=1), board_of("u280"))


def test_a_board_with_too_little_memory_is_refused() -> None:
    board = replace(board_of("u280"), memory_bytes=(8 << 30) - 512)
    with pytest.raises(InputError, match=r"memory: needs 8,589,934,592 bytes, .* \(512 too few\)"):
        check_fits(SPEC, board)


def test_a_part_of_another_size_is_extrapolated_and_said_to_be() -> None:
    wider = replace(SPEC, result_rows=4 * SPEC.result_rows, vector_rows=2048)
    found = {p.part.name: p for p in design_resources(wider)}
    assert found["result_buffer"].source == "extrapolated"
    before = {p.part.name: p for p in design_resources(SPEC)}
    ratio = found["result_buffer"].each["uram"] / before["result_buffer"].each["uram"]
    # Blocks are whole.
    assert math.isclose(ratio, 4, rel_tol=0.05)
    assert "result_buffer" in check_fits(wider, replace(board_of("u280"), uram=5000))["source"]


def test_instances_follow_the_machine() -> None:
    count = {p.name: p.instances for p in design_parts(SPEC) if p.name != "matrix_row"}
    assert count["vector_lane"] == SPEC.cores * SPEC.lanes
    assert count["matrix_scaler"] == SPEC.cores * SPEC.matrix_rows // SPEC.rows_per_scaler
    assert count["exchange"] == 1
    alone = {p.name for p in design_parts(replace(SPEC, cores=1))}
    assert "exchange" not in alone


def test_the_table_has_each_part_once() -> None:
    rows = json.loads(TABLE.read_text())
    keys = [(r["family"], r["part"], str(r["shape"])) for r in rows]
    assert len(keys) == len(set(keys))
    assert all(r[kind] >= 0 for r in rows for kind in KINDS)
