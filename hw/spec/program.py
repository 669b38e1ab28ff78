"""The program container: instructions and packed memory image of one model on one machine, in one file.

Layout: magic `LPUPROG\\n`, version (u32), header length (u32), header (JSON), sections back to back, SHA-256 of
everything before it. All integers are little-endian. The header names every section with its length.
"""

import hashlib
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hw.spec.errors import InputError
from hw.spec.instructions import ENCODING_VERSION, Unit, instruction_bits
from hw.spec.machine import MachineSpec, machine_from_dict
from hw.spec.output import atomic_write

MAGIC = b"LPUPROG\n"
VERSION = 1
_PREFIX = struct.Struct("<8sII")
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class Program:
    """Everything that a machine needs to run a model, and what a host needs to talk to it.

    Attributes
    ----------
    machine : MachineSpec
        The machine it was compiled for, memory timing included.
    instructions : dict of Unit to list of int
        Instruction words of each sequencer.
    memory : uint8 [words, word_bytes]
        Initial memory image, from word 0 on; the rest of the memory is zero.
    information : dict
        Plain data for the host and for reports: model name, vocabulary size, longest context, stop tokens,
        regions of the memory, recipe, tokenizer (JSON text, may be absent).
    """

    machine: MachineSpec
    instructions: dict[Unit, list[int]]
    memory: np.ndarray
    information: dict[str, Any] = field(default_factory=dict)

    @property
    def machine_hash(self) -> int:
        """Identity of the machine that runs it."""
        return self.machine.hash

    @property
    def instruction_bytes(self) -> int:
        """Bytes of all instructions, as the sequencers hold them."""
        return sum(len(words) * instruction_bits(unit) // 8 for unit, words in self.instructions.items())


def program_bytes(program: Program) -> bytes:
    """The file content of a program."""
    sections: list[tuple[str, bytes]] = []
    for unit in Unit:
        width = instruction_bits(unit) // 8
        words = program.instructions.get(unit, [])
        sections.append((unit.name, b"".join(word.to_bytes(width, "little") for word in words)))
    sections.append(("memory", np.ascontiguousarray(program.memory, np.uint8).tobytes()))
    header = json.dumps(
        {
            "encoding": ENCODING_VERSION,
            "machine_hash": program.machine_hash,
            "machine": program.machine.to_dict(),
            "sections": [[name, len(content)] for name, content in sections],
            "information": program.information,
        },
        sort_keys=True,
    ).encode()
    body = _PREFIX.pack(MAGIC, VERSION, len(header)) + header + b"".join(c for _, c in sections)
    return body + hashlib.sha256(body).digest()


def save_program(program: Program, path: Path) -> None:
    """Write a program file; nothing is left if that fails."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(program_bytes(program))


def load_program(path: Path, machine: MachineSpec | None = None) -> Program:
    """Read a program file; with `machine`, refuse one of another machine.

    Raises
    ------
    InputError
        If the file is missing, truncated, corrupted, of another version or of another machine.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) < _PREFIX.size + _DIGEST_BYTES:
        raise InputError(f"{path}: not a program file: only {len(content)} bytes")
    magic, version, header_bytes = _PREFIX.unpack_from(content)
    if magic != MAGIC:
        raise InputError(f"{path}: not a program file: expected it to begin with {MAGIC!r}")
    if version != VERSION:
        raise InputError(f"{path}: version: expected {VERSION}, found {version}")
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        raise InputError(f"{path}: checksum: the file is corrupted or truncated")
    header = json.loads(body[_PREFIX.size : _PREFIX.size + header_bytes])
    if header["encoding"] != ENCODING_VERSION:
        raise InputError(f"{path}: encoding: expected {ENCODING_VERSION}, found {header['encoding']}")
    spec = machine_from_dict(header["machine"], f"{path}: machine")
    if header["machine_hash"] != spec.hash:
        raise InputError(f"{path}: machine_hash: expected {spec.hash:#010x}, found {header['machine_hash']:#010x}")
    if machine is not None and machine.hash != spec.hash:
        raise InputError(
            f"{path}: compiled for machine {spec.name} ({spec.hash:#010x}), not {machine.name} ({machine.hash:#010x})"
        )
    sections: dict[str, bytes] = {}
    position = _PREFIX.size + header_bytes
    for name, length in header["sections"]:
        sections[name] = body[position : position + length]
        position += length
    memory = np.frombuffer(sections["memory"], np.uint8).reshape(-1, spec.word_bytes)
    instructions = {unit: _split(sections[unit.name], instruction_bits(unit) // 8) for unit in Unit}
    return Program(spec, instructions, memory, header["information"])


def _split(content: bytes, width: int) -> list[int]:
    return [int.from_bytes(content[i : i + width], "little") for i in range(0, len(content), width)]
