"""Programs that read the cache more than once: the same tokens, more bytes."""

import dataclasses

import pytest

from emulator.run import Generation
from hw.spec.machine_file import load_machine
from mapping.compiler import compile_model
from mapping.frontend.model import load_model, synthetic_model
from mapping.recipe import load_recipe

CONFIG = dataclasses.replace(
    load_model("tinyllama-1.1b").config, hidden_size=24, intermediate_size=40, layers=2, heads=4, kv_heads=2,
    head_dim=6, vocabulary_size=50, maximum_positions=64,
)  # fmt: skip


@pytest.mark.parametrize("target", ["tiny", "two-core"])
def test_the_same_tokens_from_more_bytes(target: str) -> None:
    spec = load_machine(target)
    tokens, read = [], []
    for reads in (1, 2, 4):
        machine = dataclasses.replace(spec, cache_reads=reads)
        program = compile_model(synthetic_model(CONFIG), machine, load_recipe("w8a8"), 32)
        generation = Generation(program, [3, 1, 4, 1, 5], 6)
        tokens.append(list(generation.stream()))
        read.append(generation.timing().bytes_read)
    assert tokens[0] == tokens[1] == tokens[2]
    assert len(set(tokens[0])) > 1
    assert read[2] - read[1] == 2 * (read[1] - read[0]) > 0
