"""`lpu demo` on the smallest target: every step is shown, hardware equals emulator, and the folder holds what is named."""

from pathlib import Path

import pytest

import lpu
from hw.spec.program import load_program
from sim_tests import demo


def test_the_whole_story(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "demo"
    arguments = [
        "demo",
        "--target",
        "tiny",
        "--prompt",
        "The",
        "--tokens",
        "3",
        "--rtl-tokens",
        "2",
        "-o",
        str(folder),
    ]
    assert lpu.main(arguments) == 0
    printed = capsys.readouterr().out
    for number in range(1, 8):
        assert f"== {number}  " in printed
    last = printed.strip().splitlines()[-1]
    assert last.startswith("llama-2-7b on u280, recipe flightllm-artifact: 1")
    assert "FlightLLM: 57.1, published" in last
    assert "NO" not in printed
    assert printed.count("yes") == 10
    assert "held-out loss" in printed
    named = {"model.lpu", "trace.json", "timeline.png", "step.png", "roofline.png"}
    assert {path.name for path in folder.iterdir()} == named | {"verilog"}
    assert all(name in printed for name in named)
    assert str(folder) in printed
    assert load_program(folder / "model.lpu").information["model"] == demo.MODEL
    assert "module lpu_processor" in (folder / "verilog" / "lpu_processor.sv").read_text()


def test_a_difference_is_shown_and_is_status_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = demo.simulate

    def one_bit_off(*arguments: object, **options: object) -> object:
        result = honest(*arguments, **options)  # type: ignore[arg-type]  # passed on as they come
        result.memory[5, 0] ^= 1
        return result

    monkeypatch.setattr(demo, "simulate", one_bit_off)
    folder = str(tmp_path / "demo")
    assert (
        lpu.main([
            "demo",
            "--target",
            "tiny",
            "--tokens",
            "1",
            "--rtl-tokens",
            "1",
            "--prompt",
            "A",
            "-o",
            folder,
        ])
        == 1
    )
    printed = capsys.readouterr()
    assert "NO" in printed.out
    assert "memory word 0x5" in printed.err


@pytest.mark.parametrize(
    "option",
    [["--model", "none"], ["--target", "none"], ["--recipe", "none"], ["-o", "no/such/folder"]],
)
def test_what_the_demo_cannot_use(
    option: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert lpu.main(["demo", *option]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
