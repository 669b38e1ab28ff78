"""The program container: instructions and packed memory image of one model on one machine, in one file.

Layout: magic `LPUPROG\\n`, version (u32), header length (u32), header (JSON), sections back to back, SHA-256 of
everything before it. All integers are little-endian. The header names every section with its length; the
instructions of a unit are as `hw.spec.code_section` says. The section of the memory, the last, has the images of all cores one behind another, all of the same length. A machine with
hardwired matrices has a section `wires` before it: their weights (`hw.spec.wires`).
"""

import contextlib
import hashlib
import json
import math
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from hw.spec.code_section import pack_code, unpack_code
from hw.spec.errors import InputError
from hw.spec.instructions import ENCODING_VERSION, Unit, instruction_bits
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import machine_from_dict
from hw.spec.output import atomic_write
from hw.spec.wires import Wires

MAGIC = b"LPUPROG\n"
VERSION = 3
_PREFIX = struct.Struct("<8sII")
_DIGEST_BYTES = 32
_PIECE = 1 << 22
"""Bytes that are read at once for the checksum."""


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
        regions of the memory, recipe, tokenizer (JSON text, may be absent), names of the hardwired matrices.
    wires : Wires, optional
        Weights of the machine's hardwired matrices, if it has any: what its hardware is made with.
    """

    machine: MachineSpec
    instructions: dict[Unit, list[int]]
    memory: np.ndarray
    information: dict[str, Any] = field(default_factory=dict)
    wires: Wires | None = None

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
        """Bytes of all instructions, as a program file holds them; all cores run the same."""
        return sum(len(pack_code(unit, words)) for unit, words in self.instructions.items())

    @property
    def sequencer_bytes(self) -> int:
        """Bytes of all instructions in the sequencers of one core, each as long as its unit's longest."""
        return sum(
            len(words) * instruction_bits(unit) // 8 for unit, words in self.instructions.items()
        )


@contextlib.contextmanager
def write_program(
    path: Path,
    machine: MachineSpec,
    instructions: dict[Unit, list[int]],
    words: int,
    information: dict[str, Any],
    wires: Wires | None = None,
) -> Iterator[np.ndarray]:
    """Write a program file whose memory is filled in place, so that it need not fit the computer's own.

    Yields the memory images as the file has them, all zero: uint8 [cores, words, word_bytes]. The file gets its
    checksum and its name when the body ends; nothing is left if that fails.

    Parameters
    ----------
    words : int
        Words of the memory image of each core.
    wires : Wires, optional
        Weights of hardwired matrices.
    """
    sections: list[tuple[str, bytes]] = []
    for unit in Unit:
        sections.append((unit.name, pack_code(unit, instructions.get(unit, []))))
    if wires is not None:
        sections.append(("wires", wires.to_bytes()))
    shape = (machine.cores, words, machine.word_bytes)
    header = json.dumps(
        {
            "encoding": ENCODING_VERSION,
            "machine_hash": machine.hash,
            "machine": machine.to_dict(),
            "sections": [*([n, len(c)] for n, c in sections), ["memory", math.prod(shape)]],
            "information": information,
        },
        sort_keys=True,
    ).encode()
    front = _PREFIX.pack(MAGIC, VERSION, len(header)) + header + b"".join(c for _, c in sections)
    with atomic_write(path) as temporary:
        with temporary.open("w+b") as file:
            file.write(front)
            file.truncate(len(front) + math.prod(shape))
            memory = _map_memory(file, len(front), shape, "r+")
            yield memory
            if isinstance(memory, np.memmap):
                memory.flush()
            digest = _digest(file, len(front) + math.prod(shape))
            file.seek(0, os.SEEK_END)
            file.write(digest)


def save_program(program: Program, path: Path) -> None:
    """Write a program file; nothing is left if that fails."""
    expected = (program.machine.cores,) if program.machine.cores > 1 else ()
    if program.memory.shape[:-2] != expected:
        raise ValueError(f"memory: expected an image for each of {program.machine.cores} cores")
    with write_program(
        path,
        program.machine,
        program.instructions,
        program.memory.shape[-2],
        program.information,
        program.wires,
    ) as memory:
        memory[:] = program.memory


def release(memory: np.ndarray) -> None:
    """Let go of what has been written to a mapped memory image: it is in the file then, not in the computer's memory."""
    if isinstance(memory, np.memmap) and isinstance(memory.base, mmap.mmap):
        memory.flush()
        if hasattr(mmap, "MADV_DONTNEED"):
            memory.base.madvise(mmap.MADV_DONTNEED)


def _map_memory(
    file: BinaryIO, offset: int, shape: tuple[int, ...], mode: Literal["r", "r+"]
) -> np.ndarray:
    """The bytes of a file from an offset on; what is empty cannot be mapped."""
    if not math.prod(shape):
        return np.zeros(shape, np.uint8)
    return np.memmap(file, np.uint8, mode, offset, shape)


def _digest(file: BinaryIO, length: int) -> bytes:
    """SHA-256 of the first `length` bytes of a file."""
    digest = hashlib.sha256()
    file.seek(0)
    while length > 0 and (piece := file.read(min(length, _PIECE))):
        digest.update(piece)
        length -= len(piece)
    return digest.digest()


def load_program(path: Path, machine: MachineSpec | None = None) -> Program:
    """Read a program file; with `machine`, refuse one of another machine. The memory image stays in the file.

    Raises
    ------
    InputError
        If the file is missing, truncated, corrupted, of another version or of another machine.
    """
    try:
        with path.open("rb") as file:
            return _read_program(file, str(path), machine)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _read_program(file: BinaryIO, where: str, machine: MachineSpec | None) -> Program:
    length = file.seek(0, os.SEEK_END) - _DIGEST_BYTES
    if length < _PREFIX.size:
        raise InputError(f"{where}: not a program file: only {length + _DIGEST_BYTES} bytes")
    file.seek(0)
    magic, version, header_bytes = _PREFIX.unpack(file.read(_PREFIX.size))
    if magic != MAGIC:
        raise InputError(f"{where}: not a program file: expected it to begin with {MAGIC!r}")
    if version != VERSION:
        raise InputError(f"{where}: version: expected {VERSION}, found {version}")
    digest = _digest(file, length)
    if file.read(_DIGEST_BYTES) != digest:
        raise InputError(f"{where}: checksum: the file is corrupted or truncated")
    file.seek(_PREFIX.size)
    header = _parse_header(file.read(min(header_bytes, length - _PREFIX.size)), where)
    if header["encoding"] != ENCODING_VERSION:
        raise InputError(
            f"{where}: encoding: expected {ENCODING_VERSION}, found {header['encoding']!r}"
        )
    spec = machine_from_dict(header["machine"], f"{where}: machine")
    if header["machine_hash"] != spec.hash:
        raise InputError(
            f"{where}: machine_hash: expected {spec.hash}, that of its machine, found {header['machine_hash']!r}"
        )
    if machine is not None and machine.hash != spec.hash:
        raise InputError(
            f"{where}: compiled for machine {spec.name} ({spec.hash:#010x}), not {machine.name} ({machine.hash:#010x})"
        )
    _check_information(header["information"], where)
    begin, wired = _PREFIX.size + header_bytes, bool(spec.wired_digest)
    places = _parse_sections(header["sections"], begin, length, where, wired)
    instructions: dict[Unit, list[int]] = {}
    for unit in Unit:
        start, size = places[unit.name]
        if size > spec.instructions * instruction_bits(unit) // 8:
            raise InputError(
                f"{where}: {unit.name}: expected at most {spec.instructions} items, found {size} bytes"
            )
        file.seek(start)
        instructions[unit] = unpack_code(unit, file.read(size), spec.instructions, where)
    item, (start, size) = spec.cores * spec.word_bytes, places["memory"]
    _check_section(where, "memory", size, item, spec.memory.words)
    shape = ((spec.cores,) if spec.cores > 1 else ()) + (size // item, spec.word_bytes)
    memory = _map_memory(file, start, shape, "r")
    wires = None
    if wired:
        file.seek(places["wires"][0])
        wires = _parse_wires(spec, file.read(places["wires"][1]), header["information"], where)
    return Program(spec, instructions, memory, header["information"], wires)


def _parse_wires(
    spec: MachineSpec, content: bytes, information: dict[str, Any], where: str
) -> Wires:
    """Weights of the hardwired matrices, which have to be those of the machine's digest."""
    names, count = information.get("wires"), len(spec.wired_matrices)
    if not isinstance(names, list) or [type(name) for name in names] != [str] * count:
        raise InputError(f"{where}: information: wires: expected {count} names")
    try:
        wires = Wires.from_bytes(content, spec.wired_matrices, names)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if wires.digest != spec.wired_digest:
        raise InputError(
            f"{where}: wires: expected weights of digest {spec.wired_digest}, found {wires.digest}"
        )
    return wires


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


def _parse_sections(
    listed: list[Any], begin: int, end: int, where: str, wired: bool
) -> dict[str, tuple[int, int]]:
    """First byte and length of each section: exactly those of a program, and nothing behind them."""
    sections: dict[str, tuple[int, int]] = {}
    for entry in listed:
        match entry:
            case [str(name), int(length)] if 0 <= length <= end - begin:
                sections[name] = (begin, length)
                begin += length
            case _:
                raise InputError(
                    f"{where}: header: sections: expected names and lengths within the file"
                )
    names = [*(unit.name for unit in Unit), *(["wires"] if wired else []), "memory"]
    if sorted(sections) != sorted(names) or begin != end:
        raise InputError(f"{where}: header: sections: expected {', '.join(names)} and nothing else")
    return sections


def _check_section(where: str, name: str, length: int, item: int, room: int) -> None:
    if length % item or length > room * item:
        raise InputError(
            f"{where}: {name}: expected at most {room} items of {item} bytes, found {length} bytes"
        )
