"""Energy: events counted by other ways, and the one published point."""

from dataclasses import fields

import pytest

from emulator.energy import EVENTS, EnergyCosts, count_events, joules
from emulator.timing import TimingEngine
from hw.spec.instructions import Unit
from hw.spec.machine_file import load_machine
from mapping.compiler import compile_instructions, plan_model
from mapping.frontend.model import load_model
from mapping.recipe import load_recipe


def test_every_constant_has_a_source() -> None:
    assert all(
        field.metadata["source"].split(":")[0] in {"published", "fitted"}
        for field in fields(EnergyCosts)
    )


def test_energy_is_linear_in_events_and_time() -> None:
    spec = load_machine("tiny")
    nothing: dict[str, float] = dict.fromkeys(EVENTS, 0.0)
    second = joules(spec, nothing, spec.clock_hz)
    assert second == pytest.approx(EnergyCosts().static_watts)
    for name in EVENTS:
        more = joules(spec, nothing | {name: 1e12}, spec.clock_hz)
        assert more - second == pytest.approx(getattr(EnergyCosts(), name))
    assert joules(spec, nothing, 0, EnergyCosts(static_watts=0.0)) == 0


def test_events_of_a_run_are_those_of_its_bytes_and_products() -> None:
    config = load_model("pydoc-llama").config
    spec = load_machine("small")
    program = compile_instructions(plan_model(config, spec, load_recipe("w4a8"), 64))
    engine = TimingEngine(program)
    short, long = engine.run(4, 2), engine.run(4, 3)
    events = [count_events(program, run, 4, tokens) for run, tokens in ((short, 2), (long, 3))]
    token = {name: events[1][name] - events[0][name] for name in EVENTS}
    # A decoded token reads all weights of the layers and the head once: 4 bits, and 8 in the head, without scales.
    hidden, ffn = config.hidden_size, config.intermediate_size
    layer = hidden * (2 * config.query_width + 2 * config.key_width + 3 * ffn)
    head = config.vocabulary_size * hidden
    weights = config.layers * layer
    assert 1 < token["dram_bit"] / (4 * weights + 8 * head) < 1.6
    assert 0.5 < token["dsp_operation"] / (weights + head) < 0.8
    assert token["buffer_bit"] > 2 * token["dram_bit"]
    lanes = (long.busy[Unit.SFU] - short.busy[Unit.SFU]) * spec.lanes
    assert token["float_operation"] == lanes
