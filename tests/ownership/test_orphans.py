from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ags_flows.ownership import LONGEST_RENEWAL, is_orphan, is_ours, lease_is_kept

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=timezone.utc)
OURS = {"managed-by": "ags-flows", "flow-run-id": "run-1"}


@given(st.integers(4, 86400), st.integers(0, 86400))
def test_a_lease_is_kept_while_three_quarters_minus_the_longest_renewal_remain(lease, left):
    kept = lease_is_kept({"lease": str(lease)}, NOW + timedelta(seconds=left), NOW)
    assert kept == (left > max(0, lease * 3 / 4 - LONGEST_RENEWAL))


@pytest.mark.parametrize(("left", "kept"), [(616, True), (615, False), (614, False), (0, False), (-1, False)])
def test_the_boundaries_of_a_lease_of_a_quarter_of_an_hour(left, kept):
    assert lease_is_kept({"lease": "900"}, NOW + timedelta(seconds=left), NOW) is kept


@pytest.mark.parametrize("metadata", [{}, {"lease": ""}, {"lease": "-1"}, {"lease": "15m"}, {"lease": "1.5"}])
def test_the_lease_of_an_instance_without_a_valid_lease_is_not_kept(metadata):
    assert not lease_is_kept(metadata, NOW + timedelta(days=1), NOW)


def test_the_lease_of_an_instance_that_never_expires_is_not_kept():
    assert not lease_is_kept({"lease": "900"}, None, NOW)


def test_an_instance_of_another_program_is_never_an_orphan():
    assert not is_orphan({"flow-run-id": "run-1"}, "terminal", NOW - timedelta(days=9), NOW)
    assert not is_orphan({"managed-by": "ags-flows"}, "terminal", NOW - timedelta(days=9), NOW)
    assert not is_orphan({}, "unknown", NOW - timedelta(days=9), NOW)
    assert is_ours(OURS)


@pytest.mark.parametrize("state", ["terminal", "unknown"])
def test_a_managed_instance_is_an_orphan_once_the_grace_time_after_its_run_is_over(state):
    assert is_orphan(OURS, state, NOW - timedelta(minutes=10), NOW)
    assert not is_orphan(OURS, state, NOW - timedelta(minutes=10, seconds=-1), NOW)
    assert is_orphan(OURS, state, NOW, NOW, grace=timedelta(0))
    assert not is_orphan(OURS, state, None, NOW)


@pytest.mark.parametrize("state", ["active", "foreign"])
def test_an_instance_of_an_active_run_or_another_server_is_never_an_orphan(state):
    assert not is_orphan(OURS, state, NOW - timedelta(days=9), NOW)
