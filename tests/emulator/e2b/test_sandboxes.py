"""E2B's control plane through the real SDK."""

import inspect
import json
import time
from datetime import datetime, timedelta, timezone

import httpx
import pytest
from e2b import Sandbox, SandboxQuery, SandboxState
from e2b.exceptions import (
    AuthenticationException,
    RateLimitException,
    SandboxException,
    SandboxNotFoundException,
)

from ags_flows.emulator.e2b import egress
from ags_flows.emulator.sandbox import Isolation, isolation

needs_idempotency_keys = pytest.mark.skipif(
    "idempotency_key" not in inspect.signature(Sandbox.create).parameters,
    reason="this version of e2b, the newest for this Python, has no idempotency keys",
)


def ids(paginator):
    found = []
    while paginator.has_next:
        found += [each.sandbox_id for each in paginator.next_items()]
    return found


def test_a_sandbox_is_created_described_and_killed(sandboxes):
    sandbox = sandboxes.create("base", timeout=60, metadata={"purpose": "test"})
    info = sandbox.get_info()
    assert info.sandbox_id == sandbox.sandbox_id
    assert info.name == "base" and info.metadata == {"purpose": "test"} and info.state == SandboxState.RUNNING
    assert 55 < (info.end_at - datetime.now(timezone.utc)).total_seconds() < 61
    assert info.envd_version == "0.6.13"
    assert sandbox.kill() is True
    assert sandboxes.kill(sandbox.sandbox_id) is False
    with pytest.raises(SandboxNotFoundException):
        sandbox.get_info()


def test_the_default_template_and_a_tools_id_and_a_tag_work_as_template(sandboxes):
    sandbox = sandboxes.create()
    tool = sandbox.get_info().template_id
    assert tool.startswith("sdt-")
    assert sandboxes.create(tool).get_info().template_id == tool
    assert sandboxes.create("base:latest").get_info().template_id == tool
    with pytest.raises(SandboxException, match="template 'nothing' not found"):
        sandboxes.create("nothing")


def test_wrong_and_missing_keys_are_refused(sandboxes, emulator):
    with pytest.raises(AuthenticationException):
        sandboxes.create("base", api_key="e2b_00")
    assert httpx.get(f"{emulator.url}/sandboxes").status_code == 401
    assert httpx.get(f"{emulator.url}/no/such/route").status_code == 401
    keys = {"X-API-KEY": emulator.api_key}
    assert httpx.get(f"{emulator.url}/no/such/route", headers=keys).json()["code"] == 404
    assert httpx.patch(f"{emulator.url}/sandboxes", headers=keys).status_code == 405


def test_sandboxes_are_listed_by_metadata_state_template_time_and_page(sandboxes):
    before = datetime.now(timezone.utc) - timedelta(seconds=1)
    odd = "key with spaces & signs = ä/+"
    made = [sandboxes.create("base", metadata={odd: str(index % 2), "n": "1"}) for index in range(5)]
    made[0].pause()
    expected = [each.sandbox_id for each in made][::-1]
    assert ids(sandboxes.list()) == expected
    assert ids(sandboxes.list(limit=2)) == expected
    assert ids(sandboxes.list(order="asc", limit=2)) == expected[::-1]
    assert ids(sandboxes.list(SandboxQuery(metadata={odd: "1"}))) == [expected[1], expected[3]]
    assert ids(sandboxes.list(SandboxQuery(metadata={odd: "1", "n": "2"}))) == []
    assert ids(sandboxes.list(SandboxQuery(state=[SandboxState.PAUSED]))) == expected[4:]
    assert ids(sandboxes.list(SandboxQuery(state=[SandboxState.RUNNING]))) == expected[:4]
    assert ids(sandboxes.list(SandboxQuery(template="base"))) == expected
    assert ids(sandboxes.list(SandboxQuery(template="code-interpreter-v1"))) == []
    assert ids(sandboxes.list(SandboxQuery(started_after=before))) == expected
    assert ids(sandboxes.list(SandboxQuery(started_after=before + timedelta(hours=1)))) == []


def test_the_older_routes_work_too(sandboxes, emulator):
    headers = {"X-API-KEY": emulator.api_key}
    with httpx.Client(base_url=emulator.url, headers=headers) as client:
        made = client.post("/sandboxes", json={"templateID": "base", "timeout": 30}).json()
        sandbox_id = made["sandboxID"]
        assert [each["sandboxID"] for each in client.get("/sandboxes").json()] == [sandbox_id]
        assert client.post(f"/sandboxes/{sandbox_id}/pause").status_code == 204
        assert client.get("/sandboxes").json() == []
        assert client.post(f"/sandboxes/{sandbox_id}/resume", json={"timeout": 30}).status_code == 201
        assert client.post(f"/sandboxes/{sandbox_id}/resume", json={"timeout": 30}).status_code == 409
        assert client.post(f"/sandboxes/{sandbox_id}/connect", json={"timeout": 30}).status_code == 200
        assert client.post(f"/sandboxes/{sandbox_id}/refreshes", json={"duration": 60}).status_code == 204
        assert client.get(f"/sandboxes/{sandbox_id}/logs").json()["logs"] == []
        assert client.delete(f"/sandboxes/{sandbox_id}").status_code == 204


def test_timeouts_are_set_shortened_and_kept(sandboxes, emulator):
    sandbox = sandboxes.create("base", timeout=100)
    sandbox.set_timeout(5)
    emulator.advance(6)
    deadline = time.monotonic() + 5
    while ids(sandboxes.list()):
        assert time.monotonic() < deadline
    with pytest.raises(SandboxNotFoundException):
        sandbox.set_timeout(10)
    with pytest.raises(SandboxException):
        sandboxes.create("base", timeout=24 * 3600 + 1)


def test_connect_never_shortens_and_resumes_what_is_paused(sandboxes):
    sandbox = sandboxes.create("base", timeout=1000)
    end = sandbox.get_info().end_at
    sandboxes.connect(sandbox.sandbox_id, timeout=10)
    assert sandbox.get_info().end_at == end
    sandboxes.connect(sandbox.sandbox_id, timeout=2000)
    assert sandbox.get_info().end_at > end
    assert sandbox.pause() is True
    assert sandbox.pause() is False
    assert sandbox.get_info().state == SandboxState.PAUSED
    again = sandboxes.connect(sandbox.sandbox_id, timeout=10)
    assert again.get_info().state == SandboxState.RUNNING
    assert (again.get_info().end_at - datetime.now(timezone.utc)).total_seconds() < 11
    assert again._envd_access_token == sandbox._envd_access_token
    with pytest.raises(SandboxNotFoundException):
        sandboxes.connect("nothing")


def test_the_end_of_the_timeout_can_pause_instead(sandboxes, emulator):
    sandbox = sandboxes.create("base", timeout=60, lifecycle={"on_timeout": "pause"})
    assert sandbox.get_info().lifecycle == {"on_timeout": "pause", "auto_resume": False}
    emulator.advance(61)
    deadline = time.monotonic() + 5
    while sandbox.get_info().state != SandboxState.PAUSED:
        assert time.monotonic() < deadline


def test_snapshots_are_made_listed_used_and_deleted(sandboxes):
    sandbox = sandboxes.create("base")
    snapshot = sandbox.create_snapshot(name="before")
    assert snapshot.names == ["before"]
    assert sandbox.get_info().state == SandboxState.RUNNING
    listed = sandboxes.list_snapshots(sandbox_id=sandbox.sandbox_id).next_items()
    assert [each.snapshot_id for each in listed] == [snapshot.snapshot_id]
    assert sandboxes.list_snapshots(name="after").next_items() == []
    assert sandboxes.create(snapshot.snapshot_id).sandbox_id != sandbox.sandbox_id
    assert sandboxes.create("before").sandbox_id != sandbox.sandbox_id
    assert sandboxes.delete_snapshot(snapshot.snapshot_id) is True
    assert sandboxes.delete_snapshot(snapshot.snapshot_id) is False


def test_a_sandbox_is_forked(sandboxes):
    sandbox = sandboxes.create("base", metadata={"a": "b"})
    forks = sandbox.fork(count=3, timeout=60)
    assert len({fork.sandbox_id for fork in forks} | {sandbox.sandbox_id}) == 4
    assert forks[0].get_info().metadata == {"a": "b"}
    assert sandbox.get_info().state == SandboxState.RUNNING
    sandbox.kill()
    with pytest.raises(SandboxNotFoundException):
        sandbox.fork()


def test_metrics_are_sampled(sandboxes):
    sandbox = sandboxes.create("base")
    first = sandbox.get_metrics()
    assert first and first[0].mem_total > 0 and first[0].cpu_count > 0 and first[0].disk_total > 0
    assert sandbox.get_metrics(end=datetime.now(timezone.utc) - timedelta(hours=1)) == []


@needs_idempotency_keys
def test_an_idempotency_key_makes_no_second_sandbox(sandboxes):
    first = sandboxes.create("base", idempotency_key="once")
    assert sandboxes.create("base", idempotency_key="once").sandbox_id == first.sandbox_id
    assert len(ids(sandboxes.list())) == 1


def test_custom_configuration_travels_in_the_metadata(sandboxes, emulator):
    config = {"image": "app:1", "imageRegistryType": "personal", "env": [{"name": "A", "value": "1"}]}
    sandbox = sandboxes.create("base", metadata={"x-custom-config": json.dumps(config)})
    shown = json.loads(sandbox.get_info().metadata["x-custom-config"])
    assert shown.pop("imageDigest").startswith("sha256:") and shown == config
    for wrong in ("{", "[]", '{"colour": "red"}', '{"env": [{"key": "A"}]}', '{"ports": 1}', '{"image": ""}'):
        with pytest.raises(SandboxException) as caught:
            sandboxes.create("base", metadata={"x-custom-config": wrong})
        assert caught.value.status_code == 400


def test_the_network_settings_decide_which_ports_need_a_token(sandboxes, emulator):
    def mode(sandbox):
        regions = emulator.overview()["regions"].values()
        return {each["InstanceId"]: each["AuthMode"] for region in regions for each in region["instances"]}[
            sandbox.sandbox_id
        ]

    assert mode(sandboxes.create("base")) == "PUBLIC"
    closed = sandboxes.create("base", network={"allow_public_traffic": False})
    assert mode(closed) == "TOKEN" and closed.traffic_access_token


def test_what_cannot_be_kept_from_the_network_is_refused(sandboxes, monkeypatch):
    monkeypatch.setattr(egress, "isolation", lambda: Isolation(None, True, None, ()))
    assert sandboxes.create("base").is_running()
    with pytest.raises(SandboxException, match="no namespaces on this machine"):
        sandboxes.create("base", allow_internet_access=False)


@pytest.mark.skipif(isolation().bwrap is None, reason="no namespaces here")
def test_rules_for_what_goes_out_are_kept_replaced_and_checked(sandboxes):
    sandbox = sandboxes.create("base", network={"deny_out": ["8.8.8.8"], "mask_request_host": "a.example"})
    kept = {"mask_request_host": "a.example"}
    assert sandbox.get_info().network == {**kept, "deny_out": ["8.8.8.8"]}
    sandbox.update_network({"deny_out": ["0.0.0.0/0"], "allow_out": ["*.example.com", "10.0.0.0/8"]})
    assert sandbox.get_info().network["allow_out"] == ["*.example.com", "10.0.0.0/8"]
    denied = sandbox.commands.run("curl -sS -m 5 http://8.8.8.8/").stdout
    assert "may not be reached: the sandbox's network settings deny it" in denied
    fork = sandbox.fork()[0]
    assert "settings deny it" in fork.commands.run("curl -sS -m 5 http://8.8.8.8/").stdout
    sandbox.update_network({})
    assert sandbox.get_info().network == kept

    for wrong, said in (
        ({"deny_out": ["example.com"]}, "'example.com' is neither an IP address"),
        ({"allow_out": ["example.com"]}, "0.0.0.0/0"),
        ({"deny_out": ["8.8.8.8:53"]}, "names a port"),
        ({"dns_servers": ["8.8.8.8"]}, "dnsServers"),
    ):
        with pytest.raises(SandboxException, match=said):
            sandboxes.create("base", network=wrong)


def test_a_gateway_for_mcp_that_the_image_lacks_leaves_no_sandbox(sandboxes):
    with pytest.raises(SandboxException, match="Failed to start MCP gateway"):
        sandboxes.create("base", mcp={"github": {}})

    assert ids(sandboxes.list()) == []


@needs_idempotency_keys
def test_faults_reach_e2bs_clients(sandboxes, emulator):
    emulator.fault("error", "POST /sandboxes", times=5)
    with pytest.raises(RateLimitException):
        sandboxes.create("base", retries=0)
    emulator.clear_faults()
    emulator.fault("status", "POST /sandboxes", status=503, times=2, retry_after=0)
    assert sandboxes.create("base").kill()
    emulator.fault("lost", "POST /sandboxes")
    with pytest.raises(Exception, match=".+"):
        sandboxes.create("base", idempotency_key="k", retries=0)
    sandbox = sandboxes.create("base", idempotency_key="k")
    assert ids(sandboxes.list()) == [sandbox.sandbox_id]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/sandboxes", b"{", 400),
        ("POST", "/sandboxes", b"[]", 400),
        ("POST", "/sandboxes", b"\xff", 400),
        ("POST", "/sandboxes", b"{}", 400),
        ("POST", "/sandboxes", b'{"templateID": 5}', 400),
        ("POST", "/sandboxes", b'{"templateID": "base", "timeout": "x"}', 400),
        ("POST", "/sandboxes", b'{"templateID": "base", "timeout": -1}', 400),
        ("POST", "/sandboxes", b'{"templateID": "base", "metadata": {"a": 1}}', 400),
        ("POST", "/sandboxes", b'{"templateID": "base", "metadata": {"a": "\\ud800"}}', 400),
        ("POST", "/sandboxes", b" " * (5 * 1024 * 1024), 413),
        ("GET", "/v2/sandboxes?limit=1000", b"", 400),
        ("GET", "/v2/sandboxes?limit=x", b"", 400),
        ("GET", "/v2/sandboxes?nextToken=x", b"", 400),
        ("GET", "/v2/sandboxes?state=dead", b"", 400),
        ("GET", "/v2/sandboxes?startedAfter=noon", b"", 400),
        ("GET", "/sandboxes/%2e%2e%2f%00", b"", 404),
        ("DELETE", "/templates/nothing", b"", 404),
        ("POST", "/v3/templates", b"{}", 404),
        ("GET", "/volumes", b"", 404),
        ("POST", "/secrets", b"{}", 404),
        ("PATCH", "/sandboxes", b"{}", 405),
        ("GET", "/nothing", b"", 404),
    ],
)
def test_bad_requests_get_the_right_status(emulator, method, path, body, status):
    headers = {"X-API-KEY": emulator.api_key, "Content-Type": "application/json"}
    answer = httpx.request(method, emulator.url + path, content=body, headers=headers)
    assert answer.status_code == status and answer.json()["code"] == status, answer.text


def test_tools_are_shown_as_templates(emulator, sandboxes):
    with httpx.Client(base_url=emulator.url, headers={"X-API-KEY": emulator.api_key}) as client:
        listed = {each["aliases"][0]: each for each in client.get("/v2/templates").json()}
        assert set(listed) == {"base", "code-interpreter-v1"}
        assert client.get("/templates/aliases/base").json()["templateID"] == listed["base"]["templateID"]
        assert client.get("/templates/aliases/none").status_code == 404
        assert client.get(f"/templates/{listed['base']['templateID']}").json()["buildStatus"] == "ready"


def test_what_ags_has_not_is_refused_with_what_to_use_instead(emulator):
    headers = {"X-API-KEY": emulator.api_key}
    for path, instead in (
        ("/volumes", "StorageMounts"),
        ("/v3/templates", "CreateSandboxTool"),
        ("/secrets", "environment"),
    ):
        answer = httpx.post(emulator.url + path, json={}, headers=headers)
        assert answer.status_code == 404
        assert answer.json()["message"].startswith("AGS has no ") and instead in answer.json()["message"]
