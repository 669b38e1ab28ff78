"""A decode layer of LLaMA2-7B, as wide as it is, on the RTL of a whole U280: every event as the emulator has it."""

import re

import pytest

from hw.spec.machine_file import load_machine
from mapping.frontend.model import load_model
from sim_tests import toolchain
from sim_tests.decode_layer import layer_program, one_layer, run_layer, with_memory
from sim_tests.simulate import hierarchical_blocks

TARGET, MODEL, RECIPE = "u280", "llama-2-7b", "flightllm-artifact"


def test_the_layer_is_as_wide_as_the_models() -> None:
    layer, model = one_layer(MODEL), load_model(MODEL)
    shapes = {name: shape for name, shape in layer.tensor_shapes.items() if ".0." in name}
    assert shapes == {name: model.tensor_shapes[name] for name in shapes}
    assert len(shapes) == 9
    assert layer.config.hidden_size == 4096 and layer.config.intermediate_size == 11008


def test_the_machine_is_the_targets_but_for_the_capacity_of_its_memory() -> None:
    machine = load_machine(TARGET)
    cut = with_memory(machine, 40_000)
    assert cut.memory.words == 1 << 16
    ours, theirs = cut.to_dict(), machine.to_dict()
    assert ours.pop("memory") == theirs.pop("memory") | {"words": cut.memory.words}
    assert ours == theirs


def test_blocks_are_what_a_large_machine_has_many_of() -> None:
    names = ["lpu_core", "lpu_matrix_row_matrix_row", "lpu_matrix_scaler", "lpu_vector_lane"]
    others = ["lpu_processor", "lpu_matrix_engine", "lpu_vector_walk", "lpu_core_ports_like"]
    netlist = "".join(f"module {name}(clk);\nendmodule\n" for name in [*names, *others])
    listed = re.findall(r'-module "(\w+)"', hierarchical_blocks(netlist))
    assert listed == names


@pytest.mark.slow  # ten minutes, most of them the C++ compiler and the simulation, and 2 GB
def test_every_event_of_a_layer_is_exact_on_a_whole_board() -> None:
    toolchain.require_tools()
    program = layer_program(TARGET, MODEL, RECIPE)
    facts = run_layer(program)
    assert facts["first_difference"] is None
    assert facts["cores"] == 4 and facts["matrix_rows"] == 1024
    assert facts["events_compared"] > 2000
    assert facts["words_compared"] == 4 * program.machine.memory.words
    # Both steps read all weights of the layer, of about 4 bits each.
    assert facts["bytes_read"] > 2 * 4096 * (4 * 4096 + 3 * 11008) / 2 * 0.9
