"""Hardwired matrices in machine specifications and program files: what is written is read, and others are refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from hw.spec.errors import InputError
from hw.spec.instructions import Unit
from hw.spec.latency import matrix_cycles, wired_cycles
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import load_machine, machine_from_dict
from hw.spec.program import Program, load_program, save_program
from hw.spec.wires import WiredShape, Wires, parse_shape
from sim_tests.wired_example import with_wires


def example(seed: int = 7) -> Program:
    machine, wires = with_wires(load_machine("tiny"), bits=1, seed=seed)
    memory = np.zeros((3, machine.word_bytes), np.uint8)
    names = [matrix.name for matrix in wires.matrices]
    return Program(machine, {unit: [0] for unit in Unit}, memory, {"wires": names}, wires)


def test_a_shape_is_inputs_times_outputs() -> None:
    assert parse_shape("64x512") == WiredShape(inputs=64, outputs=512)
    for text in ("64", "64x", "x64", "0x8", "8x-8", "64x512x1", "64 x 512", "64×512"):
        with pytest.raises(ValueError, match="inputs x outputs"):
            parse_shape(text)


def test_a_program_comes_back_with_its_wires(tmp_path: Path) -> None:
    program = example()
    save_program(program, tmp_path / "p.lpu")
    again = load_program(tmp_path / "p.lpu")
    assert (
        again.machine == program.machine and again.wires is not None and program.wires is not None
    )
    assert again.wires.digest == program.wires.digest == program.machine.wired_digest
    for ours, theirs in zip(again.wires.matrices, program.wires.matrices, strict=True):
        assert ours.name == theirs.name
        assert np.array_equal(ours.values, theirs.values)
        assert ours.scales.tobytes() == theirs.scales.tobytes()


def test_every_weight_and_scale_is_part_of_the_identity() -> None:
    wires = example().wires
    assert wires is not None
    digests = {wires.digest}
    for part in ("values", "scales"):
        for matrix in range(len(wires.matrices)):
            changed = [dataclasses.replace(m) for m in wires.matrices]
            array = getattr(changed[matrix], part).copy()
            array.reshape(-1).view(np.uint8)[-1] ^= 1
            changed[matrix] = dataclasses.replace(changed[matrix], **{part: array})
            digests.add(Wires(tuple(changed)).digest)
    assert len(digests) == 1 + 2 * len(wires.matrices)


def test_machines_of_other_weights_have_other_hashes() -> None:
    plain = load_machine("tiny")
    hashes = {
        plain.hash,
        *(with_wires(plain, bits, seed)[0].hash for bits in (1, 2) for seed in (1, 2)),
    }
    assert len(hashes) == 5


def test_a_program_of_another_model_is_refused(tmp_path: Path) -> None:
    save_program(example(1), tmp_path / "p.lpu")
    with pytest.raises(InputError, match=r"p\.lpu: compiled for machine tiny .*, not tiny"):
        load_program(tmp_path / "p.lpu", example(2).machine)


def test_wires_that_are_not_the_machines_are_refused(tmp_path: Path) -> None:
    own, other = example(1), example(2)
    save_program(dataclasses.replace(own, wires=other.wires), tmp_path / "p.lpu")
    with pytest.raises(InputError, match="wires: expected weights of digest [0-9a-f]{32}, found"):
        load_program(tmp_path / "p.lpu")
    save_program(dataclasses.replace(own, information={}), tmp_path / "p.lpu")
    with pytest.raises(InputError, match="information: wires: expected 3 names"):
        load_program(tmp_path / "p.lpu")
    save_program(dataclasses.replace(own, wires=None), tmp_path / "p.lpu")
    with pytest.raises(InputError, match="header: sections: expected"):
        load_program(tmp_path / "p.lpu")
    assert own.wires is not None
    fewer = Wires(own.wires.matrices[:2])
    save_program(dataclasses.replace(own, wires=fewer), tmp_path / "p.lpu")
    with pytest.raises(InputError, match="wires: expected .* bytes for these shapes"):
        load_program(tmp_path / "p.lpu")


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"wired_bits": 3}, "wired_bits: expected 0, 1, 2 or 4"),
        ({"wired_bits": 8}, "wired_bits: expected 0, 1, 2 or 4"),
        ({"wired_shapes": ["8x8"]}, "wired_bits: expected 1, 2 or 4 where there are wired_shapes"),
        (
            {"wired_bits": 1, "wired_shapes": ["8x9"]},
            "wired_shapes: expected multiples of 8 inputs",
        ),
        (
            {"wired_bits": 1, "wired_shapes": ["9x8"]},
            "wired_shapes: expected multiples of 8 inputs",
        ),
        ({"wired_bits": 1, "wired_shapes": ["wide"]}, "wired_shapes: expected inputs x outputs"),
        ({"wired_bits": 1, "wired_shapes": [8]}, "wired_shapes: expected a list of shapes"),
        ({"wired_bits": 1, "wired_digest": "red"}, "wired_digest: expected 32 hexadecimal digits"),
        ({"wired_bits": 1, "cores": 2}, "cores: expected 1 with hardwired matrices"),
    ],
)
def test_machines_that_cannot_be_built(fields: dict[str, object], message: str) -> None:
    content = load_machine("tiny").to_dict() | fields
    with pytest.raises(InputError, match=message):
        machine_from_dict(content, "t.yaml")


def test_a_machine_comes_back_from_its_dictionary() -> None:
    machine = example().machine
    assert machine_from_dict(machine.to_dict(), "t.yaml") == machine


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_product_takes_a_cycle_for_each_row_and_digit_more(bits: int) -> None:
    machine: MachineSpec = with_wires(load_machine("tiny"), bits)[0]
    for number, shape in enumerate(machine.wired_matrices, 1):
        blocks = shape.outputs // machine.matrix_rows
        lead = wired_cycles(machine, number, blocks) - matrix_cycles(machine, blocks, 1)
        assert lead == shape.inputs // 8 + 8 // bits
