"""Models for the 16-chip machine: the published one and a small one."""

import pytest

from emulator.hardwired_system.model import SystemModel


@pytest.fixture
def published_model() -> SystemModel:
    return SystemModel(
        name="gpt-oss-120b",
        layers=36,
        hidden=2880,
        heads=64,
        kv_heads=8,
        head_dim=64,
        vocabulary=201088,
        experts=128,
        experts_per_token=4,
        inner=2880,
        windowed=(True, False) * 18,
        window=128,
        maximum_positions=131072,
    )


@pytest.fixture
def small_model() -> SystemModel:
    return SystemModel(
        name="small",
        layers=2,
        hidden=96,
        heads=16,
        kv_heads=8,
        head_dim=16,
        vocabulary=320,
        experts=16,
        experts_per_token=2,
        inner=64,
        windowed=(True, False),
        window=8,
        maximum_positions=1000,
    )
