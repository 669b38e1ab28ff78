"""Instructions as a program file holds them: each as long as its opcode needs, in words of 32 bits.

The sequencers' memories have one width a unit, that of its longest instruction; most control instructions need a few bits of
it. The length of a stored instruction follows from its first four bits, the opcode. What has no opcode of the instruction
set is stored as long as the unit's longest.
"""

from functools import cache

from hw.spec.errors import InputError
from hw.spec.instructions import CONTROL, Opcode, Unit, instruction_bits, instruction_fields

__all__ = ["pack_code", "stored_bytes", "unpack_code"]

_WORD_BITS = 32
_OPCODE_MASK = 0xF


@cache
def stored_bytes(unit: Unit, opcode: int) -> int:
    """Bytes of a stored instruction."""
    if opcode not in (*CONTROL, Opcode.EXECUTE):
        return instruction_bits(unit) // 8
    bits = sum(field.width for field in instruction_fields(unit, Opcode(opcode)))
    return -(-bits // _WORD_BITS) * _WORD_BITS // 8


def pack_code(unit: Unit, words: list[int]) -> bytes:
    """The instructions of a unit, one behind the other.

    Raises
    ------
    ValueError
        If a word has bits beyond the fields of its opcode, which would be lost.
    """
    stored = []
    for word in words:
        length = stored_bytes(unit, word & _OPCODE_MASK)
        if word >> 8 * length:
            raise ValueError(f"{unit.name}: {word:#x} has bits beyond the fields of its opcode")
        stored.append(word.to_bytes(length, "little"))
    return b"".join(stored)


def unpack_code(unit: Unit, content: bytes, room: int, where: str) -> list[int]:
    """The instruction words of a section; `where` names the file in messages.

    Raises
    ------
    InputError
        If the last instruction is cut off, or they are more than `room`.
    """
    words: list[int] = []
    at = 0
    while at < len(content):
        length = stored_bytes(unit, content[at] & _OPCODE_MASK)
        if at + length > len(content):
            raise InputError(
                f"{where}: {unit.name}: expected whole instructions, found {len(content) - at} bytes of one of {length}"
            )
        words.append(int.from_bytes(content[at : at + length], "little"))
        at += length
    if len(words) > room:
        raise InputError(
            f"{where}: {unit.name}: expected at most {room} items, found {len(words)} instructions"
        )
    return words
