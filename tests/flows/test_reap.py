import json
import time
from datetime import datetime, timedelta
from types import SimpleNamespace
from uuid import uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey
from prefect.settings import PREFECT_API_URL, temporary_settings

from ags_flows import sandbox_session
from ags_flows.errors import ConfigurationError
from ags_flows.flows import reap
from ags_flows.models import ReapRules
from ags_flows.tasks import start_instance

pytestmark = pytest.mark.usefixtures("prefect_server")

AT_ONCE = ReapRules(grace_minutes=0)


@pytest.fixture
def left_over(ags_config):
    """Return a function that leaves a sandbox behind and returns its instance."""

    @flow(name="leaves-a-sandbox")
    def leaves():
        return start_instance("base", config=ags_config)

    return leaves


def status(config, instance):
    return config.control_plane().get_instance(instance.id).status


def test_the_sandbox_of_a_run_that_is_over_is_stopped_and_reported_in_an_artifact(ags_config, left_over):
    instance = left_over()
    report = reap(rules=AT_ONCE, config=ags_config)
    assert [one.id for one in report.stopped] == [instance.id]
    assert status(ags_config, instance) in ("STOPPING", "STOPPED")
    with get_client(sync_client=True) as client:
        artifact = client.read_latest_artifacts(
            artifact_filter=ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=["reap"]))
        )[0]
    rows = json.loads(artifact.data)
    assert rows[0]["id"] == instance.id and rows[0]["outcome"] == "stopped"
    assert "flow run is Completed" in rows[0]["why"]


def test_the_sandbox_of_a_run_that_goes_on_is_spared(ags_config):
    @flow
    def works():
        instance = start_instance("base", config=ags_config)
        return instance, reap(rules=AT_ONCE, config=ags_config)

    instance, report = works()
    assert not report.stopped
    assert [one.reason for one in report.spared] == ["its flow run is Running"]
    assert status(ags_config, instance) in ("STARTING", "RUNNING")


def test_the_sandbox_of_a_deleted_run_is_stopped_and_that_of_another_servers_run_is_spared(ags_config, left_over):
    deleted = left_over()
    foreign = ags_config.control_plane().start_instance(
        tool="base", timeout="1h", metadata={**deleted.metadata, "flow-run-id": str(uuid4()), "flow-id": str(uuid4())}
    )
    with get_client(sync_client=True) as client:
        client.delete_flow_run(deleted.metadata["flow-run-id"])
    spared = reap(rules=AT_ONCE, dry_run=True, config=ags_config)
    assert not spared.stopped
    # A later run of the same flow proves that the other one was deleted.
    later = left_over()
    ags_config.control_plane().stop_instance(later.id)
    report = reap(rules=AT_ONCE, config=ags_config)
    assert [one.id for one in report.stopped] == [deleted.id]
    assert [(one.id, "another Prefect server" in one.reason) for one in report.spared] == [(foreign.id, True)]
    sole = reap(rules=AT_ONCE.model_copy(update={"sole_server": True}), dry_run=True, config=ags_config)
    assert [one.id for one in sole.stopped] == [foreign.id]


def test_a_sandbox_that_was_kept_for_a_look_is_spared(ags_config):
    @flow
    def fails():
        with sandbox_session("base", on_failure="keep", config=ags_config) as sandbox:
            kept.append(sandbox.instance)
            raise ValueError("look at me")

    kept = []
    with pytest.raises(ValueError, match="look at me"):
        fails()
    report = reap(rules=AT_ONCE, config=ags_config)
    assert not report.stopped
    assert "kept for inspection" in report.spared[0].reason
    assert status(ags_config, kept[0]) == "RUNNING"


def test_an_id_that_is_not_of_a_flow_run_is_refused(ags_config):
    with pytest.raises(ConfigurationError, match="'brave-otter' is not the id of a flow run"):
        reap(flow_run_id="brave-otter", config=ags_config)


def test_without_the_prefect_server_nothing_is_stopped(ags_config, left_over):
    instance = left_over()
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        with pytest.raises(Exception, match="connection|Prefect"):
            reap.fn(rules=AT_ONCE, config=ags_config)
    assert status(ags_config, instance) in ("STARTING", "RUNNING")


def test_a_clock_that_is_ahead_does_not_shorten_the_grace_time(ags_config, left_over, monkeypatch):
    class Ahead(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(minutes=30)

    instance = left_over()
    monkeypatch.setattr("ags_flows.reaping.owners.datetime", Ahead)
    monkeypatch.setattr("ags_flows.reaping.owners.time", SimpleNamespace(time=lambda: time.time() + 1800))
    report = reap(rules=ReapRules(grace_minutes=10), config=ags_config)
    assert [one.reason for one in report.spared] == ["within the grace time"]
    assert status(ags_config, instance) in ("STARTING", "RUNNING")
