"""Target files of several families beside each other."""

from pathlib import Path

import pytest

from hw.spec.errors import InputError
from hw.spec.machine_file import load_machine
from hw.spec.targets import TARGETS, list_targets, read_target, require_family


def test_every_bundled_target_belongs_to_one_family() -> None:
    families = {require_or_none(path) for path in TARGETS.glob("*.yaml")}
    listed = [name for family in families for name in list_targets(family)]
    assert sorted(listed) == sorted(path.stem for path in TARGETS.glob("*.yaml"))


def require_or_none(path: Path) -> str:
    content = read_target(path.stem)[0]
    assert isinstance(content, dict)
    return str(content.get("family", "flight"))


def test_a_target_of_another_family_is_refused_before_its_fields(tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text("name: x\nlayers: 3\nfamily: abacus\n")
    with pytest.raises(InputError, match=r"other\.yaml: family: expected 'flight', found abacus"):
        load_machine(str(path))
    content, where = read_target(str(path))
    assert require_family(content, "abacus", str(where))["layers"] == 3
    with pytest.raises(InputError, match="a mapping of fields, found a list"):
        require_family([1], "flight", "x.yaml")
