"""Products of whole models, and the streams of one product."""

from dataclasses import replace

import numpy as np
import pytest

from emulator.systolic import list_cost
from emulator.systolic_gemm import Gemm, Tiling
from emulator.systolic_values import random_operands
from hw.spec.errors import InputError
from hw.spec.systolic_parts import Dataflow
from hw.spec.systolic_target import load_systolic
from mapping.frontend.config import ModelConfig
from mapping.frontend.model import load_model
from mapping.systolic import decode_gemms, model_gemms, prefill_gemms
from mapping.systolic_stream import collect, lower_gemm

TINY = load_systolic("mixpe-tiny")
LARGE = load_systolic("mixpe-w4a8")


@pytest.fixture(scope="module")
def llama() -> ModelConfig:
    return load_model("llama-2-7b").config


@pytest.fixture(scope="module")
def grouped() -> ModelConfig:
    return load_model("llama-3-8b").config


def test_prefill_multiplies_with_every_weight_of_a_projection_once_a_token(
    llama: ModelConfig,
) -> None:
    tokens, batch = 100, 3
    gemms = prefill_gemms(LARGE, llama, tokens, batch=batch)
    projections = [g for g in gemms if "attention_" not in g.name or "projection" in g.name]
    layer = 4 * 4096 * 4096 + 3 * 4096 * 11008
    logits = 32000 * 4096
    assert sum(g.products for g in projections) == 32 * layer * tokens * batch + logits * batch
    attention = [g for g in gemms if g not in projections]
    # Both products, for every head and pair of positions.
    assert sum(g.products for g in attention) == 32 * 2 * batch * 32 * tokens**2 * 128


def test_decode_sees_one_position_more_every_step(grouped: ModelConfig) -> None:
    gemms = decode_gemms(LARGE, grouped, prompt_length=10, tokens=3, batch=2)
    scores = [g for g in gemms if g.name == "attention_scores"]
    assert [g.n for g in scores[:: grouped.layers]] == [11, 12, 13]
    # Four query heads share a key head and are rows of one product.
    assert (scores[0].m, scores[0].k, scores[0].count) == (4, 128, 16)
    values = [g for g in gemms if g.name == "attention_values"]
    assert (values[0].m, values[0].k, values[0].n) == (4, 11, 128)
    logits = [g for g in gemms if g.name == "logits"]
    assert [(g.m, g.n) for g in logits] == [(2, 128256)] * 3


def test_a_cache_of_8_bits_is_multiplied_in_two_passes_on_4_bit_elements(
    llama: ModelConfig,
) -> None:
    four = prefill_gemms(LARGE, llama, 64, cache_bits=4)
    eight = prefill_gemms(LARGE, llama, 64, cache_bits=8)
    narrow, wide = (next(g for g in gemms if "scores" in g.name) for gemms in (four, eight))
    assert (narrow.planes, wide.planes) == (1, 2)
    assert wide.beats(LARGE) == 2 * narrow.beats(LARGE)
    assert wide.products == narrow.products


def test_a_request_is_its_prompt_and_the_tokens_behind_the_first(llama: ModelConfig) -> None:
    assert model_gemms(LARGE, llama, 32, 1) == prefill_gemms(LARGE, llama, 32)
    both = model_gemms(LARGE, llama, 32, 4)
    assert both == prefill_gemms(LARGE, llama, 32) + decode_gemms(LARGE, llama, 32, 3)


def test_llama_2_7b_prefill_keeps_the_array_busy(llama: ModelConfig) -> None:
    total = list_cost(LARGE, prefill_gemms(LARGE, llama, 2048))
    least = total.products / (64 * 64)
    assert least <= total.array_cycles <= 1.01 * least
    assert total.array_cycles <= total.cycles <= 1.01 * total.array_cycles
    weights = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008) // 2
    assert total.traffic.memory_read > weights


def test_longer_than_the_model_or_nothing_is_refused(llama: ModelConfig) -> None:
    with pytest.raises(InputError, match="positions: expected at most 4096, found 4097"):
        prefill_gemms(LARGE, llama, 4097)
    with pytest.raises(InputError, match="positions: expected at most 4096"):
        decode_gemms(LARGE, llama, 4095, 2)
    with pytest.raises(InputError, match="batch: expected at least 1, found 0"):
        prefill_gemms(LARGE, llama, 4, batch=0)
    with pytest.raises(InputError, match="tokens: expected at least 1, found 0"):
        decode_gemms(LARGE, llama, 4, 0)


@pytest.mark.parametrize("dataflow", list(Dataflow))
def test_streams_carry_every_operand_of_every_tile(dataflow: Dataflow) -> None:
    spec = replace(TINY, rows=4, columns=3, dataflow=dataflow, group_size=8)
    gemm = Gemm(6, 21, 7)
    operands = random_operands(spec, gemm, np.random.default_rng(5))
    streams = lower_gemm(spec, gemm, Tiling(8, 8, 6), operands)
    activations = sum(int(beat.activations.sum()) for beat in streams.beats)
    weights = sum(int(beat.weights.sum()) for beat in streams.beats if beat.weights is not None)
    weights += sum(int(row.sum()) for row in streams.weights)
    # Three tiles of columns; two of rows, or one block of 8.
    assert activations == 3 * operands.activations.sum()
    assert weights == (2 if spec.output_stationary else 1) * operands.weights.sum()
    assert len(streams.token_scales) == len(streams.results)
    marked = sum(beat.first for beat in streams.beats)
    assert marked == sum(beat.last for beat in streams.beats) == len(streams.scales)


def test_collect_puts_rows_where_they_belong_and_drops_padding() -> None:
    spec = replace(TINY, rows=4, columns=3, group_size=8)
    gemm = Gemm(5, 8, 4)
    operands = random_operands(spec, gemm, np.random.default_rng(6))
    streams = lower_gemm(spec, gemm, Tiling(8, 8, 6), operands)
    rows = [
        [0 if row is None else 10 * row + first + i for i in range(spec.columns)]
        for row, first, _ in streams.results
    ]
    outputs = collect(streams, rows, (5, 4))
    assert (outputs == 10 * np.arange(5)[:, None] + np.arange(4)).all()
