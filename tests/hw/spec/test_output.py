"""atomic_write: complete or not at all, for files and folders."""

from pathlib import Path

import pytest

from hw.spec.errors import InputError
from hw.spec.output import atomic_write


class Stop(Exception):
    """Raised by a body in the middle of its work."""


def test_a_file_appears_when_the_body_ends(tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    with atomic_write(target) as part:
        part.write_text("x")
        assert not target.exists()
        assert part.suffix == ".png" and part.parent == tmp_path
    assert target.read_text() == "x"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_replaces_a_file(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old")
    with atomic_write(target) as part:
        part.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_of_what_was_not_finished(
    tmp_path: Path, error: type[BaseException]
) -> None:
    with pytest.raises(error), atomic_write(tmp_path / "file") as part:
        part.write_text("half")
        raise error
    with pytest.raises(error), atomic_write(tmp_path / "folder") as part:
        (part / "deep").mkdir(parents=True)
        (part / "deep" / "a").write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_appears_whole(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "out") as part:
        part.mkdir()
        (part / "a").write_text("1")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "a").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_exists_keeps_what_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "deep").mkdir(parents=True)
    for name in ("mine", "deep/mine", "deep/theirs"):
        (out / name).write_text("old")
    with atomic_write(out) as part:
        (part / "deep").mkdir(parents=True)
        (part / "deep" / "theirs").write_text("new")
        (part / "also").write_text("new")
    texts = {str(p.relative_to(out)): p.read_text() for p in out.rglob("*") if p.is_file()}
    assert texts == {"mine": "old", "deep/mine": "old", "deep/theirs": "new", "also": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_missing_parent_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"), atomic_write(tmp_path / "no" / "a"):
        pytest.fail("the body must not run")


def test_a_body_that_writes_nothing_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a"):
        pass
