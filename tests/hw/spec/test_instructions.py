"""The instruction tables: every field at its limits, no two of them on the same bits, all of them in the manual."""

import random
from pathlib import Path

import pytest

from hw.spec import manual
from hw.spec.instructions import (
    CONTROL,
    EXECUTE,
    HEADER,
    Condition,
    Destination,
    Field,
    Opcode,
    Pattern,
    Reduce,
    Register,
    Source,
    Target,
    Unit,
    decode,
    encode,
    instruction_bits,
    instruction_fields,
    operation_fields,
)

ROOT = Path(__file__).resolve().parents[3]
INSTRUCTIONS = [(unit, opcode) for unit in Unit for opcode in (*CONTROL, Opcode.EXECUTE)]
ids = [f"{unit.name} {opcode.name}" for unit, opcode in INSTRUCTIONS]
each_instruction = pytest.mark.parametrize("unit, opcode", INSTRUCTIONS, ids=ids)


def own_fields(unit: Unit, opcode: Opcode) -> list[Field]:
    return [field for field in instruction_fields(unit, opcode) if field.name != "opcode"]


@each_instruction
def test_every_field_at_its_limits_comes_back_alone(unit: Unit, opcode: Opcode) -> None:
    fields = own_fields(unit, opcode)
    for field in fields:
        for value in {0, 1, 1 << field.width - 1, (1 << field.width) - 1}:
            word = encode(unit, opcode, **{field.name: value})
            assert word < 1 << instruction_bits(unit)
            expected = {other.name: 0 for other in fields} | {
                "opcode": int(opcode),
                field.name: value,
            }
            assert decode(unit, word) == expected
        for value in (1 << field.width, -1):
            with pytest.raises(ValueError, match=field.name):
                encode(unit, opcode, **{field.name: value})


@each_instruction
def test_random_values_of_all_fields_come_back(unit: Unit, opcode: Opcode) -> None:
    choose = random.Random(f"{unit} {opcode}")
    for _ in range(50):
        values = {
            field.name: choose.randrange(1 << field.width) for field in own_fields(unit, opcode)
        }
        assert decode(unit, encode(unit, opcode, **values)) == values | {"opcode": int(opcode)}


@each_instruction
def test_no_two_fields_share_a_bit_and_none_is_lost(unit: Unit, opcode: Opcode) -> None:
    fields = instruction_fields(unit, opcode)
    assert len({field.name for field in fields}) == len(fields)
    taken = 0
    for field in own_fields(unit, opcode):
        mask = encode(unit, opcode, **{field.name: (1 << field.width) - 1}) & ~0xF
        assert mask.bit_count() == field.width
        assert mask & taken == 0
        taken |= mask
    used = sum(field.width for field in fields)
    assert taken == (1 << used) - 1 & ~0xF, "the fields follow each other without a gap"
    assert used <= instruction_bits(unit)


def test_the_opcode_and_the_masks_are_where_every_sequencer_looks() -> None:
    assert [(field.name, field.width) for field in HEADER] == [
        ("opcode", 4),
        ("wait", 5),
        ("signal", 5),
    ]
    assert len(Unit) == HEADER[1].width == HEADER[2].width
    for opcode in Opcode:
        assert int(opcode) < 16


@pytest.mark.parametrize("unit", list(Unit))
def test_an_opcode_that_is_none_is_refused(unit: Unit) -> None:
    known = {int(opcode) for opcode in (*CONTROL, Opcode.EXECUTE)}
    for opcode in set(range(16)) - known:
        with pytest.raises(ValueError, match="illegal opcode"):
            decode(unit, opcode)
    with pytest.raises(ValueError, match="unknown fields"):
        encode(unit, Opcode.SYNC, target=1)


def test_every_choice_fits_its_field() -> None:
    widths = {field.name: field.width for fields in EXECUTE.values() for field in fields}
    widths |= {field.name: field.width for fields in CONTROL.values() for field in fields}
    choices = {
        "destination": Destination, "pattern": Pattern, "reduce": Reduce, "target": Target,
        "a_source": Source, "length_register": Register, "address_register": Register, "condition": Condition,
    }  # fmt: skip
    widths["target"] = next(field.width for field in EXECUTE[Unit.SFU] if field.name == "target")
    for name, choice in choices.items():
        assert max(choice) < 1 << widths[name], name


@pytest.mark.parametrize("unit", list(Unit))
def test_what_a_unit_receives_stands_for_every_field(unit: Unit) -> None:
    received = [name for name, _ in operation_fields(unit)]
    assert len(set(received)) == len(received)
    for field in EXECUTE[unit]:
        covered = field.name in received or any(
            field.name.startswith(f"{operand}_") for operand in received if operand != "sync"
        )
        assert covered, field.name


def test_the_contract_mentions_every_opcode_and_every_choice() -> None:
    contract = (ROOT / "docs" / "isa.md").read_text() + (
        ROOT / "docs" / "instructions.md"
    ).read_text()
    for choice in (
        *Opcode,
        *Register,
        *Condition,
        *Destination,
        *Pattern,
        *Source,
        *Reduce,
        *Target,
    ):
        assert choice.name in contract, choice.name


def test_the_manual_is_that_of_the_tables() -> None:
    text = (ROOT / "docs" / "instructions.md").read_text()
    assert text == manual.instruction_manual(), "run: python -m hw.spec.manual"
    for unit, opcode in INSTRUCTIONS:
        for field in instruction_fields(unit, opcode):
            assert f"`{field.name}`" in text, field.name
