"""Arbitrary requests to E2B's routes: they succeed or are refused, without a server error."""

import json

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    [
        "templateID",
        "timeout",
        "metadata",
        "envVars",
        "autoPause",
        "autoResume",
        "network",
        "memory",
        "count",
        "duration",
    ]
)
bodies = st.binary(max_size=60) | st.builds(
    lambda fields: json.dumps(fields).encode(), st.dictionaries(names, json_values | st.just("base"), max_size=5)
)
paths = st.sampled_from(
    [
        "/sandboxes",
        "/v2/sandboxes",
        "/v2/sandboxes?metadata=a%3Db&limit=1&state=paused",
        "/sandboxes/metrics?sandbox_ids=a,b",
        "/sandboxes/x",
        "/sandboxes/{live}",
        "/sandboxes/{live}/timeout",
        "/sandboxes/{live}/connect",
        "/v2/sandboxes/{live}/connect",
        "/sandboxes/{live}/refreshes",
        "/sandboxes/{live}/network",
        "/sandboxes/{live}/metrics?start=x",
        "/snapshots?limit=-1",
        "/templates/x",
        "/templates/aliases/%00",
        "//sandboxes",
        "/sandboxes/..%2f..%2fetc",
    ]
)


@pytest.fixture(scope="module")
def live(emulator_of_folder):
    emulator_of_folder.reset()
    headers = {"X-API-KEY": emulator_of_folder.api_key}
    with httpx.Client(base_url=emulator_of_folder.url, headers=headers, timeout=30) as client:
        yield client, client.post("/sandboxes", json={"templateID": "base"}).json()["sandboxID"]


@QUICK
@given(method=st.sampled_from(["GET", "POST", "PUT", "PATCH"]), path=paths, body=bodies)
def test_every_response_has_a_status_below_500(live, method, path, body):
    client, sandbox_id = live
    answer = client.request(method, path.replace("{live}", sandbox_id), content=body)
    assert answer.status_code < 500, (method, path, body, answer.text)
    if answer.status_code >= 400:
        assert answer.json()["code"] == answer.status_code
    for each in client.get("/v2/sandboxes").json():
        if each["sandboxID"] != sandbox_id:
            client.delete(f"/sandboxes/{each['sandboxID']}")
