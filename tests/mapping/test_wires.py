"""Models whose weights are wires: the program of a machine with hardwired matrices computes what any other does."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import lpu
from emulator.machine import Machine
from emulator.report import multiplications
from emulator.timing import TimingEngine
from hw.spec.errors import InputError
from hw.spec.instructions import Opcode, Unit, decode
from hw.spec.machine_file import load_machine
from hw.spec.machine_limits import check_machine
from hw.spec.program import Program, load_program
from hw.spec.weight_format import WIRES
from mapping.compiler import compile_instructions, compile_model, plan_model
from mapping.frontend.model import Model, load_model
from mapping.packing import arrange
from mapping.recipe import Recipe, WeightFormat, load_recipe

FIXTURES = Path(__file__).parent / "fixtures"
RECIPE = load_recipe("w4a8-channel")
PROMPT = [3, 1, 2, 7, 5]
MODELS = ["tied_f32", "grouped_odd_f16"]


def model(name: str) -> Model:
    return load_model(FIXTURES / name)


def wired(name: str, context: int = 32) -> Program:
    return compile_model(model(name), load_machine("hardwired-tiny"), RECIPE, context)


@pytest.mark.parametrize("name", MODELS)
def test_tokens_are_those_of_a_machine_that_streams_its_weights(name: str) -> None:
    ours = wired(name)
    theirs = compile_model(model(name), load_machine("tiny"), RECIPE, 32)
    assert theirs.wires is None and ours.wires is not None
    tokens = [
        Machine(program, check=check, trace=False).run(PROMPT, 12)[0].tokens[:17].tolist()
        for program, check in ((ours, True), (ours, False), (theirs, False))
    ]
    assert tokens[0] == tokens[1] == tokens[2]
    assert len(set(tokens[0][5:])) > 1


@pytest.mark.parametrize("name", MODELS)
def test_only_tables_keys_and_values_come_from_memory(name: str) -> None:
    program = wired(name)
    engine = TimingEngine(program)
    more = engine.run(4, 3).bytes_read - engine.run(4, 2).bytes_read
    streamed = TimingEngine(compile_model(model(name), load_machine("tiny"), RECIPE, 32))
    other = streamed.run(4, 3).bytes_read - streamed.run(4, 2).bytes_read
    config = model(name).config
    assert program.wires is not None
    weights = program.information["hardwired_weights"]
    assert 0 < weights <= program.wires.weights
    assert other - more > weights // 2
    # Norms, an embedding, a row of the RoPE table, keys and values with their scales; padded, and with tiles.
    vectors = 4 * config.hidden_size * (2 * config.layers + 2)
    assert more < 40 * (vectors + config.layers * config.kv_heads * config.head_dim * 16)


def instructions(program: Program) -> list[dict[str, int]]:
    words = program.instructions[Unit.MPE]
    return [decode(Unit.MPE, word) for word in words if word & 0xF == Opcode.EXECUTE]


@pytest.mark.parametrize("name", MODELS)
def test_instructions_name_every_matrix_once(name: str) -> None:
    program = wired(name)
    spec, layers = program.machine, model(name).config.layers
    found: dict[int, int] = {}
    for fields in instructions(program):
        if fields["format"] != WIRES:
            continue
        # The output head stands outside the loop over layers.
        rounds = layers if fields["steps_step"] else 1
        for index in range(rounds):
            number = fields["steps_offset"] - index * fields["steps_step"]
            assert number not in found
            found[number] = fields["blocks_cap"]
    assert sorted(found) == list(range(1, len(spec.wired_matrices) + 1))
    for number, blocks in found.items():
        assert spec.wired_matrices[number - 1].outputs == blocks * spec.matrix_rows
    assert program.information["wires"][0] == "lm_head"
    assert set(program.information["wires"][1:]) == {
        f"layers.{layer}.{part}"
        for layer in range(layers)
        for part in program.information["matrices"]
    }


def test_every_weight_is_the_models(tmp_path: Path) -> None:
    loaded = model("grouped_odd_f16")
    plan = plan_model(loaded.config, load_machine("hardwired-tiny"), RECIPE, 32)
    wires = wired("grouped_odd_f16").wires
    assert wires is not None
    for matrix in wires.matrices:
        whole = arrange(loaded.tensor(matrix.name), matrix.name.split(".", 2)[-1], plan)
        rows, columns = whole.shape
        weights = matrix.values * matrix.scales.astype(np.float32)[:, None]
        assert not weights[rows:].any() and not weights[:, columns:].any()
        error = np.abs(weights[:rows, :columns] - whole).max(axis=1)
        assert (
            error <= 0.6 * np.abs(matrix.scales[:rows]) + 0.31 * np.abs(whole).max(axis=1)
        ).all()
        assert np.abs(error).mean() < 0.15 * np.abs(whole).max(axis=1).mean()


def test_timing_needs_no_weights() -> None:
    plan = plan_model(model("tied_f32").config, load_machine("hardwired-tiny"), RECIPE, 32)
    bare, whole = compile_instructions(plan), wired("tied_f32")
    assert bare.machine.wired_shapes == whole.machine.wired_shapes and not bare.machine.wired_digest
    assert TimingEngine(bare).run(3, 4).cycles == TimingEngine(whole).run(3, 4).cycles
    assert multiplications(bare, 1, 1) >= whole.information["hardwired_weights"]


@pytest.mark.parametrize("recipe", ["w4a8", "w8a8", "w4a8-8of16"])
def test_recipes_that_wires_cannot_have(recipe: str) -> None:
    with pytest.raises(InputError, match="hardwired-tiny: wired_bits: .* recipe w4a8-channel"):
        plan_model(
            model("tied_f32").config, load_machine("hardwired-tiny"), load_recipe(recipe), 32
        )


def test_five_bits_can_be_wires_and_so_can_fp4() -> None:
    for format in (WeightFormat(5, None), WeightFormat(4, None, "fp4"), WeightFormat(2, None)):
        program = compile_model(
            model("tied_f32"), load_machine("hardwired-tiny"), Recipe("own", format), 32
        )
        assert program.wires is not None
        values = {
            abs(int(v)) for matrix in program.wires.matrices for v in np.unique(matrix.values)
        }
        assert max(values) == {5: 16, 4: 12, 2: 2}[format.bits]
        assert Machine(program, trace=False).run(PROMPT, 2)[0].tokens[5] >= 0


def test_a_machine_that_was_made_takes_its_own_model_only() -> None:
    made = wired("tied_f32")
    again = compile_model(model("tied_f32"), made.machine, RECIPE, 32)
    assert again.machine == made.machine
    scaled = dataclasses.replace(made.machine, wired_digest="0" * 32)
    with pytest.raises(InputError, match="wired_digest: the target's wires have 0000"):
        compile_model(model("tied_f32"), scaled, RECIPE, 32)
    with pytest.raises(InputError, match="wired_shapes: .* the target has 15, "):
        compile_model(model("grouped_odd_f16"), made.machine, RECIPE, 32)


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "p.lpu"
    arguments = [str(FIXTURES / "tied_f32"), "--target", "hardwired-tiny", "--context", "32"]
    assert lpu.main(["compile", *arguments, "--recipe", "w4a8", "-o", str(file)]) == 2
    assert "wired_bits: " in capsys.readouterr().err
    assert lpu.main(["compile", *arguments, "--recipe", "w4a8-channel", "-o", str(file)]) == 0
    assert load_program(file).wires is not None
    capsys.readouterr()
    assert lpu.main(["verilog", "--target", "hardwired-tiny", "-o", str(tmp_path / "v")]) == 2
    assert "the weights are part of this hardware; name a program" in capsys.readouterr().err
    assert lpu.main(["verilog", "-o", str(tmp_path / "v")]) == 2
    assert "--target, --program: expected one of them" in capsys.readouterr().err


def test_a_wider_machine_computes_the_same() -> None:
    """Of activations two bits a cycle, with scalers that rows share and rows of the activation buffer of 32 bytes."""
    base = load_machine("hardwired-tiny")
    other = dataclasses.replace(
        base, name="other", channels=4, bus_bytes=16, drain_lanes=2, rows_per_scaler=4, wired_bits=2,
        sparse=1, matrix_columns=2, matrix_scales=64,
    )  # fmt: skip
    program = compile_model(model("tied_f32"), check_machine(other, "other"), RECIPE, 32)
    ours = Machine(program, trace=False).run(PROMPT, 6)[0].tokens[:11]
    theirs = Machine(wired("tied_f32"), trace=False).run(PROMPT, 6)[0].tokens[:11]
    assert ours.tolist() == theirs.tolist()
