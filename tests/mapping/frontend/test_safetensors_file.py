"""The checkpoint reader: right values for good files, one clear line for every kind of bad one."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy

from hw.spec.errors import InputError
from mapping.frontend.safetensors_file import TensorFolder, read_header

WriteRaw = Callable[..., Path]


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def one_line(error: pytest.ExceptionInfo[InputError]) -> str:
    """Return the message, which must be one printable line."""
    message = str(error.value)
    assert message.isprintable()
    return message


def test_reads_what_the_library_writes(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    stored: dict[str, npt.NDArray[Any]] = {
        "single": generator.standard_normal((5, 7)).astype(np.float32),
        "half": generator.standard_normal((3, 2, 4)).astype(np.float16),
        "rank_zero": np.array(-2.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
    }
    safetensors.numpy.save_file(stored, tmp_path / "model.safetensors", metadata={"format": "np"})
    folder = TensorFolder(tmp_path)
    assert set(folder.entries) == set(stored)
    for name, values in stored.items():
        loaded = folder.load(name, values.shape)
        assert loaded.dtype == np.float32
        np.testing.assert_array_equal(loaded, values.astype(np.float32))


def test_reads_every_finite_bfloat16(write_raw: WriteRaw, tmp_path: Path) -> None:
    bits = np.arange(1 << 16, dtype=np.uint32)
    exponents = (bits >> 7) & 0xFF
    bits = bits[exponents != 0xFF]
    write_raw({"w": entry("BF16", [len(bits)], 0, 2 * len(bits))}, bits.astype("<u2").tobytes())
    loaded = TensorFolder(tmp_path).load("w", (len(bits),)).astype(np.float64)
    # From the definition: sign, exponent with bias 127, seven bits of fraction.
    sign = np.where(bits >> 15, -1.0, 1.0)
    exponent, fraction = ((bits >> 7) & 0xFF).astype(np.int64), (bits & 0x7F) / 128.0
    normal = np.ldexp(1.0 + fraction, exponent - 127)
    subnormal = np.ldexp(fraction, -126)
    np.testing.assert_array_equal(loaded, sign * np.where(exponent == 0, subnormal, normal))


HEADER = {"a": entry("F32", [2], 0, 8), "b": entry("F32", [1], 8, 12)}

BAD_HEADERS: dict[str, tuple[Any, bytes, str]] = {
    "overlap": (HEADER | {"b": entry("F32", [1], 4, 8)}, bytes(8), "'b'.*overlaps"),
    "gap": (HEADER | {"b": entry("F32", [1], 12, 16)}, bytes(16), "'b'.*gap"),
    "outside": (HEADER | {"b": entry("F32", [1], 8, 12)}, bytes(8), "'b'.*within the 8 bytes"),
    "far outside": ({"a": entry("F32", [2], 2**63, 2**63 + 8)}, bytes(8), "'a'.*within"),
    "backwards": ({"a": entry("F32", [2], 8, 0)}, bytes(8), "'a'.*within"),
    "negative": ({"a": entry("F32", [2], -8, 0)}, bytes(8), "'a'.*two offsets"),
    "fractional": ({"a": entry("F32", [2], 0, 8) | {"data_offsets": [0.0, 8.0]}}, bytes(8), "'a'"),
    "bool extent": ({"a": entry("F32", [True, 2], 0, 8)}, bytes(8), "'a'.*whole numbers"),
    "negative extent": ({"a": entry("F32", [-1, -2], 0, 8)}, bytes(8), "'a'.*whole numbers"),
    "wrong size": ({"a": entry("F32", [3], 0, 8)}, bytes(8), "'a'.*12 bytes of F32"),
    "huge shape": ({"a": entry("F32", [2**62] * 90, 0, 8)}, bytes(8), "'a'"),
    "bytes left": (HEADER, bytes(13), "found"),
    "no shape": ({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, bytes(8), "'a'.*expected dtype"),
    "dtype list": ({"a": entry("F32", [2], 0, 8) | {"dtype": ["F32"]}}, bytes(8), "'a': dtype"),
    "entry list": ({"a": [1, 2]}, bytes(8), "'a'.*expected dtype"),
    "not an object": (b"[1]", b"", "JSON object"),
    "not JSON": (b"{'a'", b"", "expected JSON"),
    "not UTF-8": (b'{"\xff": 1}', b"", "expected JSON"),
    "NaN": (b'{"a": NaN}', b"", "expected JSON"),
    "twice": (b'{"a": 1, "a": 2}', b"", "twice"),
    "deep": (b'{"a":' + b"[" * 200_000, b"", "expected JSON"),
    "long number": (b'{"a": ' + b"9" * 5000 + b"}", b"", "expected JSON"),
}


@pytest.mark.parametrize("kind", BAD_HEADERS)
def test_refuses_bad_header(kind: str, write_raw: WriteRaw) -> None:
    header, buffer, message = BAD_HEADERS[kind]
    path = write_raw(header, buffer)
    with pytest.raises(InputError) as error:
        read_header(path)
    place, found = one_line(error).split("model.safetensors", 1)
    assert place + "model.safetensors" == str(path)
    assert re.search(message, found)


def test_refuses_truncated_length(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\x10\0\0")
    with pytest.raises(InputError, match="header: expected 8 bytes of length"):
        read_header(path)


def test_refuses_truncated_header(write_raw: WriteRaw) -> None:
    path = write_raw(b'{"a": ', length=1000)
    with pytest.raises(InputError, match="header: expected 1000 bytes, found 6.*truncated"):
        read_header(path)


@pytest.mark.parametrize("length", [100_000_001, 2**63, 2**64 - 1])
def test_refuses_long_header(length: int, write_raw: WriteRaw) -> None:
    path = write_raw(b"{}", length=length)
    with pytest.raises(InputError, match="header: expected at most 100000000 bytes"):
        read_header(path)


def test_names_in_messages_are_harmless(write_raw: WriteRaw) -> None:
    path = write_raw({"\x1b[2J\n" + "x" * 10_000: [1]})
    with pytest.raises(InputError) as error:
        read_header(path)
    assert len(one_line(error)) < 400


@pytest.mark.parametrize("dtype", ["F64", "I64", "F8_E4M3", "F6_E2M3"])
def test_refuses_unsupported_type(dtype: str, write_raw: WriteRaw, tmp_path: Path) -> None:
    size = {"F8_E4M3": 4, "F6_E2M3": 3}.get(dtype, 32)
    write_raw({"a": entry(dtype, [4], 0, size)}, bytes(size))
    with pytest.raises(InputError, match=f"tensor 'a': dtype: .*F32, F16, BF16, found '{dtype}'"):
        TensorFolder(tmp_path).load("a", (4,))


def test_refuses_wrong_shape_and_missing_tensor(write_raw: WriteRaw, tmp_path: Path) -> None:
    write_raw(HEADER, bytes(12))
    folder = TensorFolder(tmp_path)
    with pytest.raises(InputError, match=r"tensor 'a': shape: expected \[1, 2\], found \[2\]"):
        folder.load("a", (1, 2))
    with pytest.raises(InputError, match="tensor 'c': expected in the weights, not found"):
        folder.load("c", (1,))


@pytest.mark.parametrize(
    ("dtype", "bad"),
    [("F32", 0x7F800000), ("F32", 0xFFC00000), ("F16", 0x7C00), ("F16", 0x7E00), ("BF16", 0xFF80)],
)
def test_refuses_values_that_are_not_finite(
    dtype: str, bad: int, write_raw: WriteRaw, tmp_path: Path
) -> None:
    size = 4 if dtype == "F32" else 2
    values = bytes(5 * size) + bad.to_bytes(size, "little")
    write_raw({"a": entry(dtype, [2, 3], 0, 6 * size)}, values)
    with pytest.raises(InputError, match=r"tensor 'a': expected finite weights, .* at \[1, 2\]"):
        TensorFolder(tmp_path).load("a", (2, 3))


def test_refuses_file_that_shrank(write_raw: WriteRaw, tmp_path: Path) -> None:
    path = write_raw(HEADER, bytes(12))
    folder = TensorFolder(tmp_path)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(InputError, match="tensor 'b': expected 1 values, found 0"):
        folder.load("b", (1,))


def write_index(folder: Path, weight_map: Any) -> None:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")


def test_shards(sharded_folder: Path) -> None:
    folder = TensorFolder(sharded_folder)
    files = {entry.path.name for entry in folder.entries.values()}
    assert len(files) == 4
    assert folder.load("model.norm.weight", (40,)).shape == (40,)


@pytest.mark.parametrize(
    "shard", ["../outside.safetensors", "a/../../outside.safetensors", "/etc/passwd", "", "\0"]
)
def test_refuses_shard_outside(shard: str, tmp_path: Path, write_raw: WriteRaw) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    write_raw(HEADER, bytes(12), path=tmp_path / "outside.safetensors")
    write_index(folder, {"a": shard})
    with pytest.raises(InputError, match="weight_map: expected a file in this folder") as error:
        TensorFolder(folder)
    assert "link" not in one_line(error)


def test_refuses_link_outside(tmp_path: Path, write_raw: WriteRaw) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    write_raw(HEADER, bytes(12), path=tmp_path / "outside.safetensors")
    (folder / "shard.safetensors").symlink_to("../outside.safetensors")
    write_index(folder, {"a": "shard.safetensors"})
    with pytest.raises(InputError, match="a link that leads out of it"):
        TensorFolder(folder)
    (folder / "model.safetensors").symlink_to("../outside.safetensors")
    with pytest.raises(InputError, match="a link that leads out of it"):
        TensorFolder(folder)


def test_follows_links_of_a_download_cache(tmp_path: Path, write_raw: WriteRaw) -> None:
    folder = tmp_path / "models--x--y" / "snapshots" / "0123"
    folder.mkdir(parents=True)
    blobs = tmp_path / "models--x--y" / "blobs"
    blobs.mkdir()
    write_raw(HEADER, bytes(12), path=blobs / "abcd")
    (folder / "model.safetensors").symlink_to("../../blobs/abcd")
    assert set(TensorFolder(folder).entries) == {"a", "b"}


@pytest.mark.parametrize("weight_map", [None, ["a"], {"a": 1}, {"a": None}])
def test_refuses_bad_weight_map(weight_map: Any, tmp_path: Path) -> None:
    write_index(tmp_path, weight_map)
    with pytest.raises(InputError, match="weight_map: expected a file name for each tensor"):
        TensorFolder(tmp_path)


def test_refuses_missing_shard_and_missing_tensor(tmp_path: Path, write_raw: WriteRaw) -> None:
    write_index(tmp_path, {"a": "one.safetensors", "c": "one.safetensors"})
    with pytest.raises(
        InputError, match="one.safetensors: expected a safetensors file, found none"
    ):
        TensorFolder(tmp_path)
    write_raw(HEADER, bytes(12), path=tmp_path / "one.safetensors")
    with pytest.raises(InputError, match="one.safetensors: tensor 'c': expected because"):
        TensorFolder(tmp_path)


def test_random_damage_is_never_a_traceback(fixtures_folder: Path, tmp_path: Path) -> None:
    original = (fixtures_folder / "linear_untied_f32" / "model.safetensors").read_bytes()
    header_end = 8 + int.from_bytes(original[:8], "little")
    generator = np.random.default_rng(11)
    path = tmp_path / "model.safetensors"
    refused = 0
    for _ in range(400):
        content = bytearray(original)
        for place in generator.integers(0, header_end, generator.integers(1, 4)):
            content[place] = generator.choice([0, 0xFF, *b'"{}[]:,-019.e ', content[place] ^ 1])
        path.write_bytes(content[: generator.choice([header_end, len(content)], p=[0.1, 0.9])])
        try:
            read_header(path)
        except InputError as error:
            assert str(error).isprintable()
            refused += 1
    assert refused > 200
