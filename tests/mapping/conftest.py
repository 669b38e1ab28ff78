"""What the tests of `mapping` share: stored checkpoints, and copies of them to spoil."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FIXTURES = Path(__file__).parent / "fixtures"

EditJson = Callable[..., None]
WriteRaw = Callable[..., Path]


@pytest.fixture
def fixtures_folder() -> Path:
    """The folders that `make_fixtures.py` made; that of `make_gpt_oss_fixture.py` is beside it."""
    return FIXTURES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a small model in one file."""
    return Path(shutil.copytree(FIXTURES / "linear_untied_f32", tmp_path / "model"))


@pytest.fixture
def sharded_folder(tmp_path: Path) -> Path:
    """A copy of a small model in four shards."""
    return Path(shutil.copytree(FIXTURES / "llama3_sharded_bf16", tmp_path / "sharded"))


@pytest.fixture
def edit_json() -> EditJson:
    """Set fields of a JSON file; a field set to `...` is removed."""

    def edit(path: Path, **changes: Any) -> None:
        content = json.loads(path.read_text(encoding="utf-8"))
        content.update(changes)
        kept = {key: value for key, value in content.items() if value is not ...}
        path.write_text(json.dumps(kept), encoding="utf-8")

    return edit


@pytest.fixture
def write_raw(tmp_path: Path) -> WriteRaw:
    """Write a safetensors file byte by byte: any header, any length, any buffer."""

    def write(
        header: dict[str, Any] | bytes,
        buffer: bytes = b"",
        *,
        length: int | None = None,
        path: Path | None = None,
    ) -> Path:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path = path or tmp_path / "model.safetensors"
        size = len(text) if length is None else length
        path.write_bytes(size.to_bytes(8, "little") + text + buffer)
        return path

    return write
