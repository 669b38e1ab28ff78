"""Fixtures of all that a user may get wrong: a refusal is status 2, one line that says what and where, no file left."""

import shutil
from pathlib import Path

import pytest

import lpu
from tests.bad_input.arguments import MODEL, Refuse


@pytest.fixture
def refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Run `lpu` and check how it refuses; gives the line on standard error."""

    def run(*arguments: object, names: tuple[object, ...] = ()) -> str:
        before = sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        status = lpu.main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert (status, printed.out) == (2, ""), printed
        lines = printed.err.splitlines()
        assert len(lines) == 1, printed.err
        assert lines[0].startswith("lpu: ")
        for name in names:
            assert str(name) in lines[0], lines[0]
        assert sorted(tmp_path.rglob("*")) == before
        return lines[0]

    return run


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program of a small model without tokenizer."""
    path = tmp_path_factory.mktemp("compiled") / "model.lpu"
    arguments = [
        "compile",
        MODEL,
        "--target",
        "tiny",
        "--recipe",
        "w8a8",
        "--context",
        32,
        "-o",
        path,
    ]
    assert lpu.main([str(argument) for argument in arguments]) == 0
    return path


@pytest.fixture
def program(compiled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(compiled, tmp_path / "model.lpu"))
