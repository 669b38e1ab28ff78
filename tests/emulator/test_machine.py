"""The functional machine: requests it refuses, early stops, and results that no order of units changes."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from emulator.machine import Machine, UnitTrace
from hw.spec.errors import InputError
from hw.spec.instructions import Unit
from tests.emulator.programs import compiled

PROMPT = [3, 150, 7]


@pytest.mark.parametrize(
    "prompt, tokens, stops, complaint",
    [
        ([], 1, (), "prompt: expected at least one token"),
        ([1, 2], 0, (), "tokens: expected at least 1, found 0"),
        ([1], -3, (), "tokens: expected at least 1, found -3"),
        ([1, 160], 1, (), "prompt: token id 160 at position 1 is outside 0 to 159"),
        ([-1], 1, (), "prompt: token id -1 at position 0 is outside 0 to 159"),
        ([1] * 100, 29, (), "prompt and tokens: 100 [+] 29 exceed the program's context of 128"),
        ([1], 1, (1, 2, 3, 4, 5), "stop tokens: expected at most 4, found 5"),
    ],
    ids=["empty", "no-tokens", "negative-tokens", "large-id", "negative-id", "too-long", "stops"],
)
def test_bad_requests(
    prompt: list[int], tokens: int, stops: tuple[int, ...], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        Machine(compiled()).run(prompt, tokens, stops)


def test_the_longest_request_is_taken() -> None:
    steps = Machine(compiled(), check=False, trace=False).steps([1] * 127, 1)
    assert next(steps).token == 1


def tokens_set(traces: dict[Unit, UnitTrace]) -> int:
    """Instructions of SYS that are no SYNC: those write something."""
    return sum(checksum != 0 for checksum in traces[Unit.SYS].checksum)


def test_a_run_is_a_prompt_and_its_answer() -> None:
    state, traces = Machine(compiled()).run(PROMPT, 5)
    assert state.tokens[:3].tolist() == PROMPT
    assert tokens_set(traces) == 3 + 5
    assert state.end and state.token == state.tokens[7]
    assert not state.tokens[8:].any()


def test_steps_show_every_token_when_it_is_set() -> None:
    state, _ = Machine(compiled()).run(PROMPT, 4)
    for check in (True, False):
        machine = Machine(compiled(), check=check, trace=False)
        seen = [(s.token, s.end) for s in machine.steps(PROMPT, 4)]
        assert [token for token, _ in seen] == state.tokens[:7].tolist()
        assert [end for _, end in seen] == [False] * 6 + [True]


def test_a_stop_token_ends_the_run() -> None:
    whole, _ = Machine(compiled()).run(PROMPT, 8)
    answer = whole.tokens[3:11].tolist()
    stop = answer[4]
    length = answer.index(stop) + 1
    state, traces = Machine(compiled()).run(PROMPT, 8, (1000, stop))
    assert state.tokens[3:11].tolist() == answer[:length] + [0] * (8 - length)
    assert tokens_set(traces) == 3 + length


def test_a_stop_token_in_the_prompt_does_not() -> None:
    state, _ = Machine(compiled()).run(PROMPT, 2, (PROMPT[1],))
    assert len(state.tokens[3:5]) == 2 and state.end


def test_forced_tokens_replace_the_answer() -> None:
    known = list(Machine(compiled()).steps(PROMPT, 3, forced=[9, 8]))[-1]
    assert known.tokens[3:5].tolist() == [9, 8]
    # The same tokens as a prompt leave the same state behind.
    given, _ = Machine(compiled()).run([*PROMPT, 9, 8], 1)
    assert given.tokens[5] == known.tokens[5]
    assert (given.memory == known.memory).all()


ORDERS = [*itertools.permutations(Unit)][:: 120 // 12]


@pytest.mark.parametrize("target, recipe", [("tiny", "w4a8"), ("small", "w8a8")])
def test_the_order_of_units_changes_nothing(target: str, recipe: str) -> None:
    code = compiled(target, recipe)
    first_state, first = Machine(code).run(PROMPT, 3)
    for order in ORDERS:
        state, traces = Machine(code, check=False, order=order).run(PROMPT, 3)
        assert traces == first, order
        for name in ("memory", "result", "vector", "scalars", "activation", "store", "tokens"):
            assert np.array_equal(getattr(state, name), getattr(first_state, name)), (order, name)


def test_switches_change_no_result() -> None:
    expected, traces = Machine(compiled()).run(PROMPT, 3)
    for check, trace in itertools.product((False, True), repeat=2):
        state, kept = Machine(compiled(), check=check, trace=trace).run(PROMPT, 3)
        assert (state.memory == expected.memory).all()
        assert kept == (traces if trace else {unit: UnitTrace() for unit in Unit})


def test_a_machine_can_run_again() -> None:
    machine = Machine(compiled())
    first = machine.run(PROMPT, 3)[1]
    machine.run([1], 5)
    assert machine.run(PROMPT, 3)[1] == first


SCRIPT = """
import os, sys
from emulator.compiled import cache_folder
from emulator.sequencer import expand, new_state
import numpy as np
expand(np.zeros((0, 50), np.int64), new_state(), 1, 1, 1, np.zeros((1, 20), np.int64))
print(sum(expand.stats.cache_hits.values()), cache_folder())
"""


def run_script(**environment: str) -> tuple[int, Path]:
    """Cache hits and cache folder of a fresh process."""
    root = Path(__file__).resolve().parents[2]
    kept = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(
        command, cwd=root, env=kept | environment, capture_output=True, text=True, check=True
    )
    hits, folder = done.stdout.split()
    return int(hits), Path(folder)


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "NUMBA_CACHE_DIR"])
@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="XDG is for other systems")
def test_compiled_code_is_kept_outside_the_package(tmp_path: Path, variable: str) -> None:
    assert run_script(**{variable: str(tmp_path)})[0] == 0
    hits, folder = run_script(**{variable: str(tmp_path)})
    assert hits == 1
    assert folder.is_relative_to(tmp_path)
    assert list(folder.rglob("sequencer.expand*.nbi"))


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="XDG is for other systems")
def test_without_any_cache_it_works_all_the_same(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    assert run_script(XDG_CACHE_HOME=str(blocked))[0] == 0
