"""Opening the files of a folder that a user downloaded and nobody has checked."""

import json
from pathlib import Path
from typing import Any, NoReturn

from hw.spec.errors import InputError

JSON_LIMIT = 100_000_000
"""Largest JSON text in bytes; the safetensors format sets the same limit for its header."""

_SHOWN_CHARACTERS = 80


def shown(value: object) -> str:
    """Return ``value`` as it may stand in a message: one printable line, never a long one."""
    text = ascii(value)
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return text[: _SHOWN_CHARACTERS - 4] + "..." + text[-1]


def resolve_inside(folder: Path, name: str, field: str) -> Path:
    """Return the path of the file ``name`` of ``folder``, which must not lie elsewhere.

    Symbolic links are followed first. They may leave the folder in one case: a download cache that
    keeps ``snapshots/<revision>/`` beside ``blobs/`` links from the one to the other.

    Raises
    ------
    InputError
        If the name is absolute, contains ``..`` or leads out of the folder through a link.
    """
    relative = Path(name)
    if not name or "\0" in name or relative.is_absolute() or ".." in relative.parts:
        raise InputError(f"{folder}: {field}: expected a file in this folder, found {shown(name)}")
    root = folder.resolve()
    allowed = [root]
    if root.parent.name == "snapshots":
        allowed.append(root.parent.parent / "blobs")
    path = (root / relative).resolve()
    if not any(path.is_relative_to(place) for place in allowed):
        raise InputError(
            f"{folder}: {field}: expected a file in this folder, found {shown(name)}, "
            "a link that leads out of it"
        )
    return folder / relative


def read_bytes(path: Path, limit: int = JSON_LIMIT) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes.

    Raises
    ------
    InputError
        If there is no such file, it cannot be read, or it is too long.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: expected a file, found {'a folder' if path.is_dir() else 'none'}"
        )
    try:
        size = path.stat().st_size
        if size > limit:
            raise InputError(f"{path}: expected at most {limit} bytes, found {size}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def parse_json_object(text: bytes, label: str) -> dict[str, Any]:
    """Return the JSON object in ``text``; ``label`` says in messages where it stands.

    Raises
    ------
    InputError
        If it is not UTF-8 or not JSON, is no object, nests too deeply, names a key twice, or holds
        the NaN and Infinity that JSON does not have.
    """
    try:
        value = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_object_of_unique_keys,
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError) as error:
        raise InputError(f"{label}: expected JSON, found {shown(str(error))}") from error
    if not isinstance(value, dict):
        raise InputError(f"{label}: expected a JSON object, found a {type(value).__name__}")
    return value


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object that a file holds; raises `InputError` as its two steps do."""
    return parse_json_object(read_bytes(path), str(path))


def _object_of_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r} twice")
            seen.add(key)
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which JSON does not have")
