"""Look-ups of flow runs on a real Prefect server, and the comparison with its clock."""

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from types import SimpleNamespace
from uuid import uuid4

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from ags_flows.errors import UnreachableError
from ags_flows.reaping.owners import PrefectOwners


def now():
    return datetime.now(timezone.utc)


@pytest.fixture
def api(prefect_server):
    with get_client(sync_client=True) as client:
        yield client


@flow(name="owns-a-sandbox")
def owns():
    return FlowRunContext.get().flow_run


def known(api, run, flow_id, **options):
    return PrefectOwners(api, **options).look_up({str(run): str(flow_id)})[str(run)]


def test_a_later_run_of_the_same_flow_proves_that_a_run_was_deleted(api):
    run = owns()
    created_at = now()
    api.delete_flow_run(run.id)
    assert not known(api, run.id, run.flow_id).was_deleted(created_at)
    owns()
    found = known(api, run.id, run.flow_id)
    assert found.standing == "unknown" and found.was_deleted(created_at)


def test_a_copied_database_without_newer_runs_does_not_prove_a_deletion(api):
    """The copy knows the flow and older runs. The sandbox's run started later, on the original server."""
    older = owns()
    found = known(api, uuid4(), older.flow_id)
    assert found.standing == "unknown"
    assert not found.was_deleted(now())


def test_a_run_whose_flow_is_unknown_may_belong_to_another_server(api):
    assert known(api, uuid4(), uuid4()).standing == "foreign"
    assert known(api, uuid4(), "").standing == "foreign"
    assert known(api, uuid4(), "", sole_server=True).standing == "unknown"


class DatedServer:
    """Responds with a `Date` header that differs from this host's clock."""

    def __init__(self, **skew):
        self.skew = timedelta(**skew)

    def request(self, method, path):
        headers = {"date": format_datetime(now() + self.skew, usegmt=True)}
        return httpx.Response(200, headers=headers, request=httpx.Request(method, "http://server"))


@pytest.mark.parametrize(
    ("server_is", "clock_is"),
    [
        ({"minutes": -15}, timedelta(minutes=-15)),
        ({"minutes": 15}, timedelta(0)),
        ({}, timedelta(0)),
    ],
)
def test_only_a_clock_that_is_ahead_of_the_server_is_corrected(server_is, clock_is):
    clock = PrefectOwners(DatedServer(**server_is)).clock()
    assert abs(clock() - now() - clock_is) < timedelta(seconds=12)


def test_a_date_header_that_lags_a_few_seconds_does_not_change_the_clock():
    clock = PrefectOwners(DatedServer(seconds=-5)).clock()
    assert clock() >= now() - timedelta(seconds=3)


def test_a_response_without_a_date_header_does_not_change_the_clock():
    response = httpx.Response(200, request=httpx.Request("GET", "http://server"))
    clock = PrefectOwners(SimpleNamespace(request=lambda method, path: response)).clock()
    assert abs(clock() - now()) <= timedelta(seconds=12)


def test_the_clock_of_a_real_server_is_read(api):
    assert abs(PrefectOwners(api).clock()() - now()) <= timedelta(seconds=12)


def test_the_clock_of_a_server_that_does_not_respond_raises_unreachable_error():
    def refuse(method, path):
        raise httpx.ConnectError("refused")

    with pytest.raises(UnreachableError, match="refused"):
        PrefectOwners(SimpleNamespace(request=refuse)).clock()
