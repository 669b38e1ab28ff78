"""Quantized checkpoints on the machine: its integers and scales are those of the files."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lpu
from emulator.machine import Machine
from hw.spec.errors import InputError
from hw.spec.layout import unpack_scales, unpack_weights
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import load_machine
from mapping.checkpoint import RECIPE, choose_recipe
from mapping.compiler import compile_model, plan_model
from mapping.export import export_model, is_packed
from mapping.formats import ORDER_SUFFIX
from mapping.frontend import Model, load_model, synthetic_model
from mapping.frontend.config import parse_config
from mapping.frontend.gptq import write_gptq
from mapping.frontend.model import CONFIG_FILE
from mapping.frontend.safetensors_write import write_safetensors
from mapping.frontend.weights import stored_name
from mapping.losses import dequantized_weights, exact_loss, float_loss
from mapping.packing import compress_model
from mapping.recipe import WeightFormat
from mapping.round_to_nearest import zero_point_matrix

MODEL = "pydoc-llama"
CONTEXT = 32
Exported = Callable[..., Path]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Exports of the bundled model, each made once."""
    root = tmp_path_factory.mktemp("exports")

    def folder(layout: str, symmetric: bool = False) -> Path:
        path = root / f"{layout}-{symmetric}"
        if not path.exists():
            export_model(load_model(MODEL), layout, path, symmetric=symmetric)
        return path

    return folder


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """The bundled model as GPTQ in activation order, every matrix another one; and its weights by definition."""
    folder = tmp_path_factory.mktemp("order") / "model"
    source = load_model(MODEL)
    export_model(source, "gptq", folder)
    config = json.loads((folder / CONFIG_FILE).read_text())
    config["quantization_config"]["desc_act"] = True
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    rng = np.random.default_rng(8)
    tensors, weights = {}, {}
    for name in source.tensor_shapes:
        weight = source.tensor(name)
        if not is_packed(name):
            tensors[stored_name(name)] = weight
            continue
        order = rng.permutation(weight.shape[1])
        sorted_matrix = zero_point_matrix(weight[:, order], 32, least_zero=1)
        back = np.argsort(order)
        matrix = dataclasses.replace(
            sorted_matrix,
            codes=sorted_matrix.codes[:, back],
            groups=(np.arange(len(order)) // 32)[back].astype(np.int32),
        )
        base = stored_name(name).removesuffix(".weight")
        tensors |= {f"{base}.{end}": t for end, t in write_gptq(matrix, offset=1).items()}
        weights[name] = sorted_matrix.stored().dequantize()[:, back]
    write_safetensors(folder / "model.safetensors", tensors)
    return folder, weights


def kept_formats(path: Path, target: str) -> tuple[Model, set[WeightFormat]]:
    model, machine = load_model(path), load_machine(target)
    chosen = choose_recipe(None, model, machine)
    assert chosen.recipe.name == RECIPE
    assert chosen.notes == ()
    plan = plan_model(model.config, machine, chosen.recipe, CONTEXT)
    # Not a weight is another than in the file, whichever the format.
    for name, weight in dequantized_weights(model, plan).items():
        if is_packed(name):
            np.testing.assert_array_equal(weight, model.tensor(name))
    return model, {
        piece.format for s in plan.segments for m in s.matrices.values() for piece in m.pieces
    }


FORMATS = {
    ("awq-gemm", False): WeightFormat(5, 32, stored=True),
    ("awq-gemv", True): WeightFormat(4, 32, stored=True),
    ("gptq", False): WeightFormat(5, 32, stored=True),
    ("gptq-v2", True): WeightFormat(4, 32, stored=True),
    ("qserve", False): WeightFormat(8, None, stored=True),
    ("mxfp4", False): WeightFormat(4, 32, "mxfp4", stored=True),
}


@pytest.mark.parametrize(("layout", "symmetric"), FORMATS)
def test_every_weight_is_kept_in_the_narrowest_format(
    layout: str, symmetric: bool, exported: Exported
) -> None:
    folder = exported(layout, symmetric)
    wanted = FORMATS[layout, symmetric]
    _, formats = kept_formats(folder, "tiny-sparse")
    assert formats == {wanted}
    # A target without it has INT8.
    _, formats = kept_formats(folder, "small")
    bits = 4 if wanted.bits == 4 and wanted.kind == "integer" else 8
    assert formats == {WeightFormat(bits, wanted.group, stored=True)}


def test_one_zero_point_beside_8_takes_another_bit(exported: Exported, tmp_path: Path) -> None:
    """All zero points 7: -7 to 8, which INT4 does not hold."""
    folder = Path(shutil.copytree(exported("gptq-v2", True), tmp_path / "sevens"))
    config = json.loads((folder / CONFIG_FILE).read_text())
    config["quantization_config"]["sym"] = False
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    model = load_model(folder)
    assert model.quantized is not None
    content = bytearray((folder / "model.safetensors").read_bytes())
    for name in model.quantized.packed:
        entry = model.quantized._files.entries[f"model.{name}.qzeros"]
        content[entry.begin : entry.end] = b"\x77" * (entry.end - entry.begin)
    (folder / "model.safetensors").write_bytes(content)
    assert model.quantized.integer_range() == (-7, 8)
    _, formats = kept_formats(folder, "tiny-sparse")
    assert formats == {WeightFormat(5, 32, stored=True)}


def test_what_memory_holds_is_the_file(exported: Exported) -> None:
    """A matrix found in the program's memory, unpacked, against codes read bit by bit."""
    folder, tensor = exported("awq-gemm"), "layers.0.self_attn.k_proj"
    model, machine = load_model(folder), load_machine("tiny-sparse")
    recipe = choose_recipe(None, model, machine).recipe
    plan = plan_model(model.config, machine, recipe, CONTEXT)
    program = compile_model(model, machine, recipe, CONTEXT)
    segment = plan.segments[0]
    matrix = segment.matrices["self_attn.k_proj"]
    (part,) = matrix.parts
    (piece,) = part.pieces
    base = segment.base + segment.offsets["self_attn.k_proj"]
    values, scales = [], []
    for tile in range(part.tiles):
        at = base + tile * part.tile_words
        blocks = min(part.tile_blocks, part.blocks - tile * part.tile_blocks)
        rows = blocks * machine.matrix_rows
        words = program.memory[at : at + blocks * part.block_scale_words]
        scales.append(unpack_scales(words, rows, 4, machine))
        at += part.tile_blocks * part.block_scale_words
        words = program.memory[at : at + blocks * part.block_words]
        values.append(unpack_weights(words, rows, 128, piece.format.step, machine))
    assert model.quantized is not None
    stored = model.quantized.stored(tensor)
    np.testing.assert_array_equal(np.concatenate(values)[:64], stored.values)
    np.testing.assert_array_equal(np.concatenate(scales)[:64], stored.scales)


@pytest.mark.parametrize("layout", ["awq-gemm", "mxfp4"])
def test_the_emulator_predicts_as_the_dequantized_weights_do(
    layout: str, exported: Exported
) -> None:
    model, machine = load_model(exported(layout)), load_machine("tiny-sparse")
    ids = model.tokenizer.encode((Path(load_model(MODEL).folder or "") / "heldout.txt").read_text())
    program = compile_model(model, machine, choose_recipe(None, model, machine).recipe, 65)
    exact = exact_loss(program, ids, 64, 64, None)
    reference = float_loss(model, ids, 64, 64, None)
    assert exact.loss == pytest.approx(reference.loss, abs=0.03)
    assert np.abs(exact.losses - reference.losses).mean() < 0.1


@pytest.mark.parametrize("layout", ["gptq", "qserve"])
def test_several_cores_hold_the_same_weights(layout: str, exported: Exported) -> None:
    machine = dataclasses.replace(load_machine("tiny-sparse"), cores=2)
    model = load_model(exported(layout))
    recipe = choose_recipe(None, model, machine).recipe
    plan = plan_model(model.config, machine, recipe, CONTEXT)
    for name, weight in dequantized_weights(model, plan).items():
        if is_packed(name):
            np.testing.assert_array_equal(weight, model.tensor(name))


@pytest.mark.parametrize(("target", "cores"), [("tiny-sparse", 1), ("small", 1), ("small", 2)])
def test_activation_order(
    target: str, cores: int, shuffled: tuple[Path, dict[str, np.ndarray]]
) -> None:
    """Every matrix is kept exactly: the inputs of `down_proj` sorted with the outputs of its producers, the others on the machine."""
    folder, weights = shuffled
    model = load_model(folder)
    machine = dataclasses.replace(load_machine(target), cores=cores)
    chosen = choose_recipe(None, model, machine)
    assert chosen.notes == ()
    plan = plan_model(model.config, machine, chosen.recipe, CONTEXT)
    # Each of a layer's six others has an order of its own.
    assert [len(segment.matrices) for segment in plan.segments] == [13] * len(plan.segments)
    found = dequantized_weights(model, plan)
    assert model.quantized is not None
    for layer in range(model.config.layers):
        prefix = f"layers.{layer}.mlp."
        gate, up, down = (f"{prefix}{name}_proj" for name in ("gate", "up", "down"))
        order = np.argsort(model.quantized.groups(down), kind="stable")
        assert (order != np.arange(352)).any()
        np.testing.assert_array_equal(found[down], weights[down][:, order])
        for name in (gate, up):
            np.testing.assert_array_equal(found[name], weights[name][order])
        for name in ("q", "k", "v", "o"):
            name = f"layers.{layer}.self_attn.{name}_proj"
            np.testing.assert_array_equal(found[name], weights[name])


@pytest.fixture(scope="module")
def ordered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As quantizers write it: what reads the same has the same order."""
    folder = tmp_path_factory.mktemp("ordered") / "model"
    export_model(load_model(MODEL), "gptq", folder, symmetric=True, activation_order=True)
    return folder


def test_one_permutation_for_matrices_of_one_order(ordered: Path) -> None:
    model, machine = load_model(ordered), load_machine("tiny-sparse")
    recipe = choose_recipe(None, model, machine).recipe
    plan = plan_model(model.config, machine, recipe, CONTEXT)
    (segment,) = plan.segments
    permutations = {name for name in segment.matrices if name.endswith(ORDER_SUFFIX)}
    assert permutations == {
        f"{name}{ORDER_SUFFIX}"
        for name in ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj")
    }
    compressed = compress_model(model, plan)
    rng = np.random.default_rng(1)
    assert model.quantized is not None
    for name in permutations:
        tensor = f"layers.2.{name}"
        (matrix,) = compressed[tensor]
        x = rng.integers(-127, 128, matrix.inputs)
        groups = model.quantized.groups(tensor.removesuffix(ORDER_SUFFIX)).tolist()
        assert groups != sorted(groups)
        wanted = x[
            [i for group in range(max(groups) + 1) for i, g in enumerate(groups) if g == group]
        ]
        np.testing.assert_array_equal((matrix.values @ x)[: len(groups)], wanted)
        assert (matrix.scales == 1).all()
        assert matrix.format.bits == 2


@pytest.mark.parametrize("changes", [{"cores": 2}, {"cores": 3}, {"matrix_columns": 1}], ids=str)
def test_cores_and_columns_change_no_token_of_an_ordered_checkpoint(
    changes: dict[str, int], ordered: Path
) -> None:
    model, machine = load_model(ordered), load_machine("small")
    prompt, found = [5, 17, 30, 2, 9, 11, 3, 8, 1, 20, 21], []
    for spec in (machine, dataclasses.replace(machine, **changes)):
        recipe = choose_recipe(None, model, spec).recipe
        program = compile_model(model, spec, recipe, CONTEXT)
        found.append(Machine(program, check=True).run(prompt, 9)[0].tokens[:20].tolist())
    assert found[0] == found[1]


def test_padded_heads_of_an_ordered_checkpoint(ordered: Path) -> None:
    """Inputs of `o_proj` lie in padded heads, and are sorted without the padding."""
    padding = dataclasses.replace(load_machine("u280"), rows_per_scaler=1, cores=1)
    model, prompt, found = load_model(ordered), [5, 17, 30, 2, 9, 11, 3, 8, 1, 20, 21], []
    for machine in (load_machine("small"), padding):
        recipe = choose_recipe(None, model, machine).recipe
        program = compile_model(model, machine, recipe, CONTEXT)
        found.append(Machine(program, check=True).run(prompt, 9)[0].tokens[:20].tolist())
    assert found[0] == found[1]
    plan = plan_model(model.config, padding, recipe, CONTEXT)
    assert (model.config.head_dim, plan.head) == (32, 64)
    weight = dequantized_weights(model, plan)["layers.3.self_attn.o_proj"]
    np.testing.assert_array_equal(weight, model.tensor("layers.3.self_attn.o_proj"))


def test_activation_order_on_the_emulator(shuffled: tuple[Path, dict[str, np.ndarray]]) -> None:
    model, machine = load_model(shuffled[0]), load_machine("small")
    ids = model.tokenizer.encode((Path(load_model(MODEL).folder or "") / "heldout.txt").read_text())
    program = compile_model(model, machine, choose_recipe(None, model, machine).recipe, 65)
    exact = exact_loss(program, ids, 64, 64, None)
    reference = float_loss(model, ids, 64, 64, None)
    assert exact.loss == pytest.approx(reference.loss, abs=0.03)


def test_sorting_changes_no_bit(exported: Exported) -> None:
    """A sorted checkpoint, its matrices sent through (identical) permutations all the same: equal logits, bit by bit."""
    model, machine = load_model(exported("gptq", True)), load_machine("small")
    ids = model.tokenizer.encode((Path(load_model(MODEL).folder or "") / "heldout.txt").read_text())
    recipe = choose_recipe(None, model, machine).recipe
    sent = []
    for name, format in recipe.overrides:
        assert isinstance(format, WeightFormat)
        order = "" if name.endswith("down_proj") else ".".join(name.split(".")[-2:])
        sent.append((name, dataclasses.replace(format, order=order)))
    through = dataclasses.replace(recipe, overrides=tuple(sent))
    losses = [
        exact_loss(compile_model(model, machine, chosen, 65), ids, 64, 64, None).losses
        for chosen in (recipe, through)
    ]
    np.testing.assert_array_equal(losses[0], losses[1])


def shallow(**fields: int) -> MachineSpec:
    return dataclasses.replace(load_machine("tiny-sparse"), **fields)


def test_a_group_that_the_target_cannot_hold(exported: Exported) -> None:
    model, machine = load_model(exported("gptq", True)), shallow(rows_per_scaler=8, drain_lanes=1)
    recipe = choose_recipe(None, model, machine).recipe
    message = r"rows_per_scaler: a scale group of self_attn.k_proj takes 4 cycles"
    with pytest.raises(InputError, match=message):
        plan_model(model.config, machine, recipe, CONTEXT)


def test_a_scale_that_fp16_does_not_hold(exported: Exported, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported("mxfp4"), tmp_path / "large"))
    model = load_model(folder)
    assert model.quantized is not None
    entry = model.quantized._files.entries["model.layers.1.mlp.up_proj.weight_scales"]
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[entry.begin] = 127 + 17
    (folder / "model.safetensors").write_bytes(content)
    machine = load_machine("small")
    recipe = choose_recipe(None, model, machine).recipe
    message = (
        "layers.1.mlp.up_proj: scales: expected numbers that FP16 holds exactly, found 65536.0"
    )
    with pytest.raises(InputError, match=message):
        compile_model(model, machine, recipe, CONTEXT)


def test_padded_heads(tmp_path: Path, exported: Exported) -> None:
    """Groups may be spread over more of them, but not share one with others."""
    machine = dataclasses.replace(load_machine("u280"), rows_per_scaler=1, cores=1)
    model = load_model(exported("gptq", True))
    recipe = choose_recipe(None, model, machine).recipe
    plan = plan_model(model.config, machine, recipe, CONTEXT)
    # Halves of 16 elements are padded to 32.
    assert (model.config.head_dim, plan.head) == (32, 64)
    weight = dequantized_weights(model, plan)["layers.3.self_attn.o_proj"]
    np.testing.assert_array_equal(weight, model.tensor("layers.3.self_attn.o_proj"))

    folder = odd_heads(tmp_path)
    export_model(load_model(folder), "gptq", tmp_path / "packed")
    model = load_model(tmp_path / "packed")
    recipe = choose_recipe(None, model, load_machine("small")).recipe
    message = r"self_attn.o_proj: group_size: the target pads heads, so that groups of 32"
    with pytest.raises(InputError, match=message):
        compile_model(model, load_machine("small"), recipe, CONTEXT)


def odd_heads(tmp_path: Path) -> Path:
    """A folder of random weights whose heads have 24 elements."""
    source = load_model(MODEL).folder
    assert source is not None
    folder = tmp_path / "odd"
    folder.mkdir()
    fields = {
        "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 24,
    }  # fmt: skip
    raw = json.loads((source / CONFIG_FILE).read_text()) | fields
    (folder / CONFIG_FILE).write_text(json.dumps(raw))
    model = synthetic_model(parse_config(raw, "odd", "odd"))
    weights = {stored_name(name): model.tensor(name) for name in model.tensor_shapes}
    write_safetensors(folder / "model.safetensors", weights)
    return folder


def test_the_recipe_is_needless_where_weights_are_quantized(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "p.lpu")
    common = ["compile", "--target", "small", "--context", "16", "-o", output, "--json"]
    assert lpu.main([*common, str(exported("awq-gemv", True))]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"] == RECIPE
    assert lpu.main([*common, str(exported("awq-gemv", True)), "--recipe", "w4a8"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"] == "w4a8"
    assert lpu.main([*common, MODEL]) == 2
    assert "pydoc-llama: --recipe: expected a recipe" in capsys.readouterr().err
    assert lpu.main([*common, MODEL, "--recipe", RECIPE]) == 2
    assert capsys.readouterr().err.endswith("found checkpoint\n")


def test_notes_are_told(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(exported("gptq-v2", True), tmp_path / "mislabelled"))
    config = json.loads((folder / CONFIG_FILE).read_text())
    config["quantization_config"]["checkpoint_format"] = "gptq"
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    arguments = ["estimate", str(folder), "--target", "small", "--prompt-length", "4"]
    assert lpu.main([*arguments, "--tokens", "2"]) == 0
    captured = capsys.readouterr()
    assert "checkpoint_format says version 1" in captured.err
    assert "checkpoint" in captured.out
