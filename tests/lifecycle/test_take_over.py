"""What a take-over does with the lease of the sandbox that it takes over."""

from datetime import datetime, timezone

import pytest

from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.durable import claims
from ags_flows.lifecycle import open_sandbox as module
from ags_flows.lifecycle.open_sandbox import Launch, open_sandbox
from ags_flows.ownership import Frame, Holder, Owner, Place, Step


def launched(attempt):
    holder = Holder((Frame("flow", "a" * 32, attempt), Frame("call", f"{attempt}" * 32)))
    step = Step("one-family", "", "a" * 32, Place(), holder)
    return Launch(step, Owner("b" * 32), {"tool": "base"}, "15m", 900)


@pytest.mark.parametrize(("left", "requests"), [("30s", 2), ("10m", 1)])
def test_a_lease_that_ends_soon_is_renewed_before_the_claim(ags_config, monkeypatch, left, requests):
    control, done = ags_config.control_plane(), []
    first = open_sandbox(control, ags_config.connection(), launched(1)).instance
    control.update_instance(first.id, timeout=left)
    update, claim = ControlPlane.update_instance, claims.claim_instance

    def updated(*arguments, **options):
        done.append("update")
        return update(*arguments, **options)

    def claimed(*arguments):
        done.append("claim")
        return claim(*arguments)

    monkeypatch.setattr(ControlPlane, "update_instance", updated)
    monkeypatch.setattr(module, "claim_instance", claimed)
    second = open_sandbox(control, ags_config.connection(), launched(2))
    assert (second.instance.id, second.taken_over) == (first.id, True)
    assert done == ["update", "claim", "update"][-1 - requests :]
    ends = control.get_instance(first.id).expires_at
    assert (ends - datetime.now(timezone.utc)).total_seconds() > 800
