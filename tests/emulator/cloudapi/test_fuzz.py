"""Arbitrary requests: the Cloud API responds to each with a success or a typed error, and goes on."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException

from ags_flows.emulator.cloudapi import schema
from ags_flows.emulator.cloudapi.actions import ACTIONS

QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
words = st.sampled_from(
    [
        "",
        "base",
        "5m",
        "30s",
        "-1h",
        "PUBLIC",
        "TOKEN",
        "Status",
        "RUNNING",
        "/data",
        "../..",
        "a\0b",
        "sdt-1",
        "é",
        "1Gi",
    ]
)


@st.composite
def likely_fields(draw, model, depth=0):
    """Fields of a model, mostly of the right types."""
    fields = schema.fields_of(model)
    names = draw(st.lists(st.sampled_from(sorted(fields)), unique=True, max_size=6)) if fields else []
    return {name: draw(likely_value(fields[name], depth)) for name in names}


@st.composite
def likely_value(draw, kind, depth):
    if draw(st.integers(0, 9)) == 0 or depth > 4:
        return draw(json_values)
    if kind.many:
        return draw(st.lists(likely_value(kind.one(), depth + 1), max_size=3))
    if kind.model is not None:
        return draw(likely_fields(kind.model, depth + 1))
    if kind.scalar == "int":
        return draw(st.integers(-2, 101) | st.integers())
    if kind.scalar == "bool":
        return draw(st.booleans())
    if kind.scalar == "float":
        return draw(st.floats(allow_nan=False))
    return draw(words | st.text(max_size=60))


requests = st.sampled_from(sorted(ACTIONS)).flatmap(
    lambda action: st.tuples(st.just(action), likely_fields(f"{action}Request"))
)


@QUICK
@given(request=requests)
def test_likely_requests_succeed_or_are_refused_with_a_known_code(cloud, request):
    action, fields = request
    try:
        assert cloud.raw(action, fields)["RequestId"]
    except TencentCloudSDKException as refused:
        assert not refused.code.startswith(("InternalError", "Client", "Server")), (action, fields, refused)
        assert refused.message and refused.requestId


@QUICK
@given(action=st.sampled_from(sorted(ACTIONS)), body=json_values)
def test_arbitrary_json_is_refused_without_harm(cloud, action, body):
    try:
        cloud.raw(action, body)
    except TencentCloudSDKException as refused:
        assert not refused.code.startswith(("InternalError", "Client", "Server")), (action, body, refused)


@pytest.fixture(autouse=True)
def still_serving(cloud):
    yield
    assert cloud("DescribeQuotaOverview")["RequestId"]
