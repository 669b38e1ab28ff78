"""Estimates: their figures by other formulas, what is refused, what is printed."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from hw.spec.board import load_board
from hw.spec.errors import InputError
from hw.spec.machine_file import load_machine
from hw.spec.targets import TARGETS
from mapping.cli import estimate_command
from mapping.estimate import LABELS, estimate, streaming_ceiling
from mapping.frontend.model import load_model
from mapping.recipe import load_recipe

LLAMA = load_model("llama-2-7b").config
WEIGHTS = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008) + 32000 * 4096


def run(*arguments: str) -> str:
    result = CliRunner().invoke(estimate_command, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def artifact() -> dict:
    arguments = ("--target", "u280", "--recipe", "flightllm-artifact", "--tokens", "3", "--json")
    return json.loads(run("llama-2-7b", *arguments))


def test_llama_on_the_u280(artifact: dict) -> None:
    """Wanted of this target: 115 tokens a second, 88 % of the memory's peak, 95 % of what it can stream."""
    assert artifact["decode_tokens_per_second"] >= 115
    assert artifact["bandwidth_fraction"] >= 0.88
    assert artifact["ceiling_fraction"] >= 0.95
    assert artifact["prefill_seconds"] <= 0.36
    bytes_at_least = WEIGHTS * 4 / 8
    assert bytes_at_least < artifact["useful_bytes_per_token"] < 1.1 * bytes_at_least
    assert artifact["useful_bytes_per_token"] < artifact["bytes_per_token"]
    moved = artifact["decode_tokens_per_second"] * artifact["useful_bytes_per_token"]
    assert artifact["bandwidth_fraction"] == pytest.approx(moved / 460.8e9)
    assert all(
        0 < artifact["resources"][kind] <= artifact["resources_available"][kind]
        for kind in ("dsp", "lut", "ff", "bram", "uram")
    )


def test_prefill_counts_what_a_prompt_needs(artifact: dict) -> None:
    """Weights of the layers and attention for each of 128 tokens, and the output head once."""
    head = 32000 * 4096
    attention = sum(2 * 4096 * seen * 32 for seen in range(1, 129))
    needed = 128 * (WEIGHTS - head) + attention + head
    cycles = artifact["prefill_seconds"] * 225e6
    multipliers = 4 * 256 * 8 * 2
    assert artifact["prefill_compute_fraction"] == pytest.approx(needed / cycles / multipliers)


def test_a_refreshing_memory_streams_less_than_its_peak() -> None:
    memory = load_machine("u280").memory
    share = 1 - memory.refresh_cycles / memory.refresh_interval
    assert streaming_ceiling(load_machine("u280")) == pytest.approx(share, rel=5e-3)


def test_every_figure_says_where_it_comes_from(artifact: dict) -> None:
    told = {"labels", "resources_source"}
    assert set(artifact) - told == set(artifact["labels"])
    assert set(artifact["labels"]) <= set(LABELS)
    assert artifact["fitted_parameters"] == ["energy: static_watts"]


def test_what_is_printed_has_a_column_of_origins() -> None:
    text = run("pydoc-llama", "--target", "tiny", "--recipe", "w4a8", "--tokens", "2")
    lines = {
        line.strip().split("  ")[0]: line.split()[-1] for line in text.splitlines() if line.strip()
    }
    assert lines["cycles"] == "emulated"
    assert lines["energy joules per token"] == "modelled"
    assert lines["model"] == "given"
    assert "{" not in text


def test_a_design_that_its_board_does_not_hold_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "few.yaml"
    text = (TARGETS / "u280.yaml").read_text()
    assert "value: 9024" in text
    path.write_text(text.replace("value: 9024", "value: 8000"))
    machine = load_machine(str(path))
    with pytest.raises(
        InputError, match=r"DSP: needs 8,\d\d\d, the board has 8,000 \(\d+ too few\)"
    ):
        estimate(LLAMA, machine, load_recipe("w4a8-g128"), 4, 1, load_board(str(path)))


def test_a_small_board_has_no_card_s_power() -> None:
    machine, board = load_machine("ecp5-85"), load_board("ecp5-85")
    config = load_model("pydoc-llama").config
    facts = estimate(config, machine, load_recipe("w4a8"), 4, 3, board)
    assert facts["energy_joules_per_token"] is None
    assert facts["fitted_parameters"] == []
    assert facts["resources"]["dsp"] <= 156
    assert facts["resources_source"] == "synthesized"


def test_a_model_larger_than_the_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "little.yaml"
    path.write_text((TARGETS / "u280.yaml").read_text().replace("value: 4194304", "value: 1048576"))
    machine = load_machine(str(path))
    with pytest.raises(
        InputError, match=r"memory.words: the model needs \d+, the target has 1048576"
    ):
        estimate(LLAMA, machine, load_recipe("w4a8-g128"), 4, 1)


def test_an_attention_mask_makes_prefill_shorter_and_says_what_is_left() -> None:
    arguments = ("--target", "small", "--prompt-length", "400", "--tokens", "2", "--json")
    dense, masked = (
        json.loads(run("pydoc-llama", "--recipe", name, *arguments))
        for name in ("w4a8", "w4a8-masked")
    )
    assert "attention_density" not in dense
    # Blocks of 64: one, two, then three of them for each query.
    pairs = sum(min(q + 1, q % 64 + 1 + 2 * 64) for q in range(400))
    assert masked["attention_density"] == pytest.approx(pairs / (400 * 401 / 2))
    assert masked["labels"]["attention_density"] == "counted"
    assert masked["prefill_seconds"] < 0.95 * dense["prefill_seconds"]
    # Decoding attends to everything; its tiles of keys may differ.
    assert masked["useful_bytes_per_token"] == dense["useful_bytes_per_token"]
