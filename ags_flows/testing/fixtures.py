"""Pytest fixtures: one emulator a session, a clean account for every test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from ags_flows.blocks import AGSConfig
from ags_flows.testing.emulators import config_for, running_emulator

if TYPE_CHECKING:
    from ags_flows.emulator import Emulator


@pytest.fixture(scope="session")
def ags_emulator_options() -> dict[str, Any]:
    """Return the settings of this session's emulator; define it in `conftest.py` to return others.

    For example `{"start": "at-once", "tls": True}`: those of `ags_flows.emulator.Emulator`.
    """
    return {}


@pytest.fixture(scope="session")
def ags_emulator_process(ags_emulator_options: dict[str, Any]) -> Iterator[Emulator]:
    """Yield the emulator of this session; tests take `ags_emulator`, which cleans up after each of them."""
    with running_emulator(**ags_emulator_options) as emulator, pytest.MonkeyPatch.context() as patch:
        for name, value in emulator.trust.items():
            patch.setenv(name, value)
        yield emulator


@pytest.fixture
def ags_emulator(ags_emulator_process: Emulator) -> Iterator[Emulator]:
    """Yield an emulator whose account is empty, without faults, its clock at the present."""
    ags_emulator_process.reset()
    yield ags_emulator_process
    ags_emulator_process.reset()


@pytest.fixture
def ags_config(ags_emulator: Emulator) -> AGSConfig:
    """Give a configuration for `ags_emulator`."""
    return config_for(ags_emulator)
