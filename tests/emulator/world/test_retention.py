"""Instances that have ended: listed for a while, then forgotten."""

import httpx
import pytest

from ags_flows.emulator import Emulator
from ags_flows.emulator.controls import MOST_ENDED
from ags_flows.emulator.world import retention
from ags_flows.testing import config_for


@pytest.fixture(scope="module")
def emulator():
    with Emulator(start="at-once", retention=100) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def control(emulator):
    return config_for(emulator).control_plane()


@pytest.fixture
def ended(emulator, control):
    """Start a number of instances and stop them."""

    def end(count):
        emulator.reset()
        emulator.transition("instance.stop", "at_once")
        ids = [control.start_instance(tool="base").id for _ in range(count)]
        for instance_id in ids:
            control.stop_instance(instance_id)
        return ids

    return end


def listed(control):
    return {each.id for each in control.list_instances()}


def test_an_ended_instance_is_forgotten_after_the_configured_time(emulator, control, ended):
    ids = set(ended(2))
    emulator.advance(99)
    assert listed(control) == ids
    emulator.advance(2)
    assert listed(control) == set() and emulator.overview()["ended"] == 0


def test_the_first_ones_are_forgotten_early_when_there_are_too_many(emulator, control, ended, monkeypatch):
    monkeypatch.setattr(retention, "MOST", 3)
    first, *rest = ended(4)
    assert listed(control) == set(rest)
    emulator.advance(101)
    assert listed(control) == set()


def test_the_overview_stays_small(emulator, ended):
    ended(MOST_ENDED + 5)
    overview = httpx.get(f"{emulator.url}/_emulator").json()
    assert overview["ended"] == MOST_ENDED + 5
    assert sum(len(region["instances"]) for region in overview["regions"].values()) == MOST_ENDED


@pytest.mark.parametrize("wrong", [{"start": "later"}, {"retention": -1}, {"retention": float("nan")}])
def test_a_wrong_setting_is_refused_by_its_name(wrong):
    [name] = wrong
    with pytest.raises(ValueError, match=name):
        Emulator(**wrong)
