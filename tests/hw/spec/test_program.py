"""The program container: what is written is read, and not a bit of it may change."""

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest

from hw.spec.code_section import pack_code, unpack_code
from hw.spec.errors import InputError
from hw.spec.instructions import CONTROL, Opcode, Unit, encode, instruction_bits, instruction_fields
from hw.spec.machine_file import load_machine
from hw.spec.program import Program, load_program, save_program, write_program


def random_program(target: str = "tiny", seed: int = 0) -> Program:
    choose = random.Random(seed)
    spec = load_machine(target)
    instructions: dict[Unit, list[int]] = {}
    for unit in Unit:
        words = []
        for _ in range(choose.randrange(1, 9)):
            opcode = choose.choice([*CONTROL, Opcode.EXECUTE])
            fields = [field for field in instruction_fields(unit, opcode) if field.name != "opcode"]
            words.append(
                encode(unit, opcode, **{f.name: choose.randrange(1 << f.width) for f in fields})
            )
        instructions[unit] = words
    memory = np.random.default_rng(seed).integers(0, 256, (7, spec.word_bytes)).astype(np.uint8)
    information = {
        "model": "none \N{SNOWMAN}",
        "context": 16,
        "stop_tokens": [1, 2],
        "tokenizer": "{}",
    }
    return Program(spec, instructions, memory, information)


def file_bytes(program: Program, folder: Path) -> bytes:
    path = folder / "bytes.lpu"
    save_program(program, path)
    content = path.read_bytes()
    path.unlink()
    return content


@pytest.mark.parametrize("target", ["tiny", "small", "large"])
def test_a_program_comes_back_as_it_was(tmp_path: Path, target: str) -> None:
    program = random_program(target)
    path = tmp_path / "p.lpu"
    save_program(program, path)
    again = load_program(path, load_machine(target))
    assert again.machine == program.machine
    assert again.instructions == program.instructions
    assert again.information == program.information
    np.testing.assert_array_equal(again.memory, program.memory)
    assert file_bytes(again, tmp_path) == path.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_the_sizes_are_those_of_the_file_and_of_the_sequencers_memories(tmp_path: Path) -> None:
    program = random_program()
    expected = sum(
        len(words) * instruction_bits(unit) // 8 for unit, words in program.instructions.items()
    )
    assert program.sequencer_bytes == expected
    without = dataclasses.replace(program, instructions={unit: [] for unit in Unit})
    own, bare = (file_bytes(p, tmp_path) for p in (program, without))
    # The header has the lengths of the sections, in as many digits as they need.
    digits = len(own) - len(bare) - program.instruction_bytes
    assert 0 <= digits <= 2 * len(Unit)
    assert program.instruction_bytes < expected


def test_every_opcode_comes_back_from_a_section_and_what_has_none_too() -> None:
    choose = random.Random(1)
    for unit in Unit:
        words = [
            encode(unit, opcode, **{f.name: (1 << f.width) - 1 for f in fields})
            for opcode in (*CONTROL, Opcode.EXECUTE)
            for fields in [[f for f in instruction_fields(unit, opcode) if f.name != "opcode"]]
        ]
        illegal = choose.randrange(1 << instruction_bits(unit) - 4) << 4
        words = [*words, illegal | Opcode.ILLEGAL, illegal | 15, *words]
        content = pack_code(unit, words)
        assert len(content) % 4 == 0
        assert unpack_code(unit, content, len(words), "p.lpu") == words
        with pytest.raises(InputError, match=f"p.lpu: {unit.name}: expected at most .* items"):
            unpack_code(unit, content, len(words) - 1, "p.lpu")
        with pytest.raises(InputError, match=f"p.lpu: {unit.name}: expected whole instructions"):
            unpack_code(unit, content[:-1], len(words), "p.lpu")
    with pytest.raises(ValueError, match="beyond the fields of its opcode"):
        pack_code(Unit.LD, [Opcode.SYNC | 1 << 32])


def test_equal_programs_are_equal_files(tmp_path: Path) -> None:
    first = file_bytes(random_program(seed=3), tmp_path)
    assert first == file_bytes(random_program(seed=3), tmp_path)
    assert first != file_bytes(random_program(seed=4), tmp_path)


def test_a_program_without_memory(tmp_path: Path) -> None:
    program = random_program()
    program = dataclasses.replace(program, memory=program.memory[:0])
    path = tmp_path / "p.lpu"
    save_program(program, path)
    assert load_program(path).memory.shape == (0, program.machine.word_bytes)


def test_a_memory_filled_in_place_is_the_same_file_and_a_failure_leaves_none(
    tmp_path: Path,
) -> None:
    program, path = random_program(), tmp_path / "p.lpu"
    parts = (program.machine, program.instructions, len(program.memory), program.information)
    with write_program(path, *parts) as memory:
        assert memory.shape == (1, *program.memory.shape)
        assert not memory.any()
        memory[0] = program.memory
    assert path.read_bytes() == file_bytes(program, tmp_path)
    path.unlink()
    with pytest.raises(KeyError), write_program(path, *parts):
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_every_bit_of_a_small_file_matters(tmp_path: Path) -> None:
    path = tmp_path / "p.lpu"
    good = file_bytes(random_program(), tmp_path)
    for place in range(0, len(good), 3):
        spoiled = bytearray(good)
        spoiled[place] ^= 1 << place % 8
        path.write_bytes(spoiled)
        with pytest.raises(InputError, match="p.lpu"):
            load_program(path)


def test_a_machine_of_another_clock_and_memory_timing_runs_it(tmp_path: Path) -> None:
    path = tmp_path / "p.lpu"
    save_program(random_program(), path)
    tiny = load_machine("tiny")
    memory = dataclasses.replace(tiny.memory, read_latency=50)
    load_program(path, dataclasses.replace(tiny, name="faster", clock_hz=1, memory=memory))
    with pytest.raises(InputError, match="compiled for machine tiny"):
        load_program(path, dataclasses.replace(tiny, scalars=128))


def test_information_of_a_wrong_type_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.lpu"
    for name, value in (
        ("context", True),
        ("stop_tokens", [1.5]),
        ("regions", []),
        ("tokenizer", 5),
    ):
        save_program(dataclasses.replace(random_program(), information={name: value}), path)
        with pytest.raises(InputError, match=f"information: {name}: expected"):
            load_program(path)
