from datetime import datetime, timedelta, timezone

from ags_flows.ownership import Identity, Owner, fingerprint, generation_of, is_orphan, is_ours, label

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=timezone.utc)
IDENTITY = Identity("run-1", "start_instance/", fingerprint({"tool": "etl"}))
OWNER = Owner("run-1", "brave-otter", host="worker-1", pid=42)


def test_the_same_step_of_the_same_run_has_the_same_token():
    again = Identity("run-1", "start_instance/", fingerprint({"tool": "etl"}))
    assert again.client_token() == IDENTITY.client_token()
    assert len(IDENTITY.client_token()) <= 64


def test_another_run_step_argument_or_occurrence_has_another_token():
    others = [
        Identity("run-2", "start_instance/", IDENTITY.parameters),
        Identity("run-1", "start_instance/second", IDENTITY.parameters),
        Identity("run-1", "start_instance/", fingerprint({"tool": "other"})),
        Identity("run-1", "start_instance/", IDENTITY.parameters, 1),
    ]
    tokens = {IDENTITY.client_token(), *(other.client_token() for other in others)}
    assert len(tokens) == 5


def test_a_dead_instance_uses_its_token_up():
    assert IDENTITY.client_token(1) != IDENTITY.client_token(0)


def test_a_step_in_another_sandbox_is_another_step():
    assert IDENTITY.within("a") == IDENTITY.within("a")
    assert IDENTITY.within("a") != IDENTITY.within("b")


def test_the_order_of_arguments_does_not_matter():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


def test_metadata_says_whose_it_is():
    metadata = label(IDENTITY, OWNER, NOW, generation=2)
    assert metadata["flow-run-id"] == "run-1"
    assert metadata["owner-host"] == "worker-1"
    assert metadata["identity"] == IDENTITY.key
    assert generation_of(metadata) == 2
    assert is_ours(metadata)


def test_what_others_started_is_never_an_orphan():
    assert not is_orphan({"flow-run-id": "run-1"}, "terminal", NOW - timedelta(days=9), NOW)
    assert not is_orphan({}, "unknown", NOW - timedelta(days=9), NOW)


def test_what_ran_outside_of_flow_runs_is_not_ours_to_reap():
    assert not is_ours(label(IDENTITY, Owner("", host="laptop"), NOW))


def test_an_orphan_is_ours_and_its_run_is_over_for_longer_than_the_grace_time():
    metadata = label(IDENTITY, OWNER, NOW - timedelta(hours=2))
    assert is_orphan(metadata, "terminal", NOW - timedelta(minutes=11), NOW)
    assert is_orphan(metadata, "unknown", NOW - timedelta(minutes=11), NOW)
    assert not is_orphan(metadata, "terminal", NOW - timedelta(minutes=9), NOW)
    assert not is_orphan(metadata, "active", NOW - timedelta(hours=2), NOW)
    assert not is_orphan(metadata, "terminal", None, NOW)
