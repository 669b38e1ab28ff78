"""Command lines to get wrong, and targets to put wrong fields into."""

from collections.abc import Callable
from pathlib import Path

import yaml

from hw.spec.targets import TARGETS

MODEL = Path(__file__).parent.parent / "mapping" / "fixtures" / "linear_untied_f32"

Refuse = Callable[..., str]


def write_target(
    path: Path, field: str | None = None, value: object = None, base: str = "tiny"
) -> Path:
    """A bundled target with one field changed (`memory.x`: of the memory), or removed if the value is `...`."""
    content = yaml.safe_load((TARGETS / f"{base}.yaml").read_text())
    if field is not None:
        owner, name = (
            (content["memory"], field[7:]) if field.startswith("memory.") else (content, field)
        )
        if value is ...:
            del owner[name]
        else:
            owner[name] = value
    path.write_text(yaml.safe_dump(content))
    return path


def compile_with(tmp_path: Path, **changes: object) -> list[object]:
    options = {"target": "tiny", "recipe": "w8a8", "output": tmp_path / "out.lpu"} | changes
    model = options.pop("model", MODEL)
    return [
        "compile",
        model,
        *(part for name, value in options.items() for part in (f"--{name}", value)),
    ]


def run(program: Path, *more: object) -> list[object]:
    return ["run", program, "--prompt-ids", "1,2", "--tokens", 2, *more]
