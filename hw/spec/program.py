"""The program container: instructions and packed memory image of one model on one machine, in one file.

Layout: magic `LPUPROG\\n`, version (u32), header length (u32), header (JSON), sections back to back, SHA-256 of
everything before it. All integers are little-endian. The header names every section with its length. The section of
the memory has the images of all cores one behind another, all of the same length.
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
VERSION = 2
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
    memory : uint8 [words, word_bytes], or [cores, words, word_bytes] if the machine has several cores
        Initial memory image of each core, from word 0 on; the rest of the memory is zero.
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
    def images(self) -> list[np.ndarray]:
        """Memory image of each core: uint8 [words, word_bytes]."""
        return [self.memory] if self.machine.cores == 1 else list(self.memory)

    @property
    def instruction_bytes(self) -> int:
        """Bytes of all instructions, as the sequencers hold them."""
        return sum(
            len(words) * instruction_bits(unit) // 8 for unit, words in self.instructions.items()
        )


def program_bytes(program: Program) -> bytes:
    """The file content of a program."""
    sections: list[tuple[str, bytes]] = []
    for unit in Unit:
        width = instruction_bits(unit) // 8
        words = program.instructions.get(unit, [])
        sections.append((unit.name, b"".join(word.to_bytes(width, "little") for word in words)))
    expected = (program.machine.cores,) if program.machine.cores > 1 else ()
    if program.memory.shape[:-2] != expected:
        raise ValueError(f"memory: expected an image for each of {program.machine.cores} cores")
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
    header = _parse_header(body[_PREFIX.size : _PREFIX.size + header_bytes], str(path))
    if header["encoding"] != ENCODING_VERSION:
        raise InputError(
            f"{path}: encoding: expected {ENCODING_VERSION}, found {header['encoding']!r}"
        )
    spec = machine_from_dict(header["machine"], f"{path}: machine")
    if header["machine_hash"] != spec.hash:
        raise InputError(
            f"{path}: machine_hash: expected {spec.hash}, that of its machine, found {header['machine_hash']!r}"
        )
    if machine is not None and machine.hash != spec.hash:
        raise InputError(
            f"{path}: compiled for machine {spec.name} ({spec.hash:#010x}), not {machine.name} ({machine.hash:#010x})"
        )
    _check_information(header["information"], str(path))
    sections = _parse_sections(header["sections"], body[_PREFIX.size + header_bytes :], str(path))
    instructions: dict[Unit, list[int]] = {}
    for unit in Unit:
        width = instruction_bits(unit) // 8
        _check_section(path, unit.name, len(sections[unit.name]), width, spec.instructions)
        instructions[unit] = _split(sections[unit.name], width)
    item = spec.cores * spec.word_bytes
    _check_section(path, "memory", len(sections["memory"]), item, spec.memory.words)
    memory = np.frombuffer(sections["memory"], np.uint8)
    shape = (spec.cores,) if spec.cores > 1 else ()
    memory = memory.reshape(*shape, len(memory) // item, spec.word_bytes)
    return Program(spec, instructions, memory, header["information"])


def _parse_header(text: bytes, where: str) -> dict[str, Any]:
    """The header, with all of its fields; a file with a right checksum may still be somebody else's."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{where}: header: expected JSON") from None
    kinds = {
        "encoding": int,
        "machine_hash": int,
        "machine": dict,
        "sections": list,
        "information": dict,
    }
    if not isinstance(header, dict):
        raise InputError(f"{where}: header: expected a mapping of fields")
    for name, kind in kinds.items():
        if not isinstance(header.get(name), kind):
            raise InputError(f"{where}: header: {name}: expected {kind.__name__}")
    return header


def _check_information(information: dict[str, Any], where: str) -> None:
    """What a host relies on; all of it may be absent."""
    kinds = {
        "vocabulary_size": int,
        "context": int,
        "stop_tokens": list,
        "regions": dict,
        "tokenizer": str,
    }
    for name, kind in kinds.items():
        value = information.get(name, kind())
        fits = type(value) is kind and (
            kind is not list or all(type(item) is int for item in value)
        )
        if not fits:
            raise InputError(
                f"{where}: information: {name}: expected {kind.__name__}, found {type(value).__name__}"
            )


def _parse_sections(listed: list[Any], content: bytes, where: str) -> dict[str, bytes]:
    """Sections by name: exactly those of a program, and nothing behind them."""
    sections: dict[str, bytes] = {}
    position = 0
    for entry in listed:
        match entry:
            case [str(name), int(length)] if 0 <= length <= len(content) - position:
                sections[name] = content[position : position + length]
                position += length
            case _:
                raise InputError(
                    f"{where}: header: sections: expected names and lengths within the file"
                )
    names = [*(unit.name for unit in Unit), "memory"]
    if sorted(sections) != sorted(names) or position != len(content):
        raise InputError(f"{where}: header: sections: expected {', '.join(names)} and nothing else")
    return sections


def _check_section(path: Path, name: str, length: int, item: int, room: int) -> None:
    if length % item or length > room * item:
        raise InputError(
            f"{path}: {name}: expected at most {room} items of {item} bytes, found {length} bytes"
        )


def _split(content: bytes, width: int) -> list[int]:
    return [int.from_bytes(content[i : i + width], "little") for i in range(0, len(content), width)]
