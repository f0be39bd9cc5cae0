"""`ags-flows doctor`: is everything there that a nightly run needs, and if not, what to do."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_API_URL

from ags_flows.blocks import AGSConfig
from ags_flows.cloud.certificates import verification
from ags_flows.cloud.connection import Connection
from ags_flows.cloud.probing import probe_data_plane
from ags_flows.cloud.proxies import proxy_for
from ags_flows.errors import AGSFlowsError, UnreachableError
from ags_flows.run.automations import LOST_RUNS, detection_time, explain_lease

COLUMNS = ("check", "verdict", "finding", "what to do")
MOST_SKEW = 300
"""Seconds; AGS refuses signatures that are older or newer by more."""

Verdict = Literal["ok", "warning", "wrong", "skipped"]


@dataclass(frozen=True)
class Finding:
    """What one check found, and what to do where it is not well."""

    check: str
    verdict: Verdict
    finding: str
    remedy: str = ""

    def row(self) -> dict[str, Any]:
        """Return it as a row of a listing."""
        fields = asdict(self)
        return {"check": self.check, "verdict": self.verdict, "finding": self.finding, "what to do": fields["remedy"]}


def examine(config: AGSConfig | None = None) -> Iterator[Finding]:
    """Give one finding after the other. A check that others need and that fails skips those."""
    try:
        config = config or AGSConfig()
        connection = config.connection()
    except AGSFlowsError as error:
        yield Finding("configuration", "wrong", error.message, error.hint or "")
        return
    yield Finding("configuration", "ok", f"{connection.control_url}, region {connection.region}")
    try:
        connection.require_keys()
    except AGSFlowsError as error:
        yield Finding("credentials", "wrong", error.message, error.hint or "")
        yield Finding("AGS", "skipped", "not asked without credentials")
    else:
        yield from _ags(config)
    yield from _prefect(config)
    yield _emulator()


def _ags(config: AGSConfig) -> Iterator[Finding]:
    connection = config.connection()
    try:
        url, proxy = connection.control_url, proxy_for(connection.control_url)
        answer = httpx.head(url, timeout=10.0, verify=verification(connection.verify_tls), proxy=proxy, trust_env=False)
        skew = (datetime.now(timezone.utc) - parsedate_to_datetime(answer.headers["date"])).total_seconds()
    except (AGSFlowsError, httpx.HTTPError, KeyError, TypeError, ValueError) as error:
        yield Finding("clock", "skipped", f"{connection.control_url} told no time: {error}")
    else:
        late = abs(skew) > MOST_SKEW
        remedy = "Set this machine's clock: AGS refuses its signatures." if late else ""
        yield Finding("clock", "wrong" if late else "ok", f"{abs(skew):.0f} s from that of AGS", remedy)
    control = config.control_plane()
    yield _data_plane(connection)
    tools = _asked("credentials", lambda: f"accepted; {len(control.list_tools())} tools")
    yield tools
    if tools.verdict == "ok":
        yield _asked("quota", lambda: str(control.quotas()) or "not told", "warning")
        if not config.role_arn and connection.data_url is None:
            yield Finding(
                "role",
                "warning",
                "role_arn is not set",
                "Images of private registries, COS and CFS need one: TENCENTCLOUD_ROLE_ARN, or the field role_arn.",
            )


def _data_plane(connection: Connection) -> Finding:
    url = connection.data_url or f"https://*.{connection.domain}"
    try:
        proxy = proxy_for(url)
        probe_data_plane(connection)
    except UnreachableError as error:
        route = f" through the proxy {urlsplit(proxy).hostname}" if proxy else ""
        return Finding(
            "data plane",
            "wrong",
            f"{url} does not respond{route}: {error.message}",
            "Check the network, the domain, and the variables HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY.",
        )
    except AGSFlowsError as error:
        return Finding("data plane", "wrong", error.message, error.hint or "")
    return Finding("data plane", "ok", url)


def _prefect(config: AGSConfig) -> Iterator[Finding]:
    address = PREFECT_API_URL.value()
    if not address:
        yield Finding(
            "Prefect server",
            "warning",
            "PREFECT_API_URL is not set: each flow run starts a server of its own",
            "Start one with `prefect server start`, then `prefect config set PREFECT_API_URL=http://HOST:4200/api`.",
        )
        return
    with get_client(sync_client=True) as client:
        try:
            version = client.api_version()
        except Exception as error:  # noqa: BLE001 - whatever it is, the server cannot be used
            yield Finding(
                "Prefect server",
                "wrong",
                f"{address} does not answer: {type(error).__name__}: {error}",
                "Check PREFECT_API_URL, and whether the server runs.",
            )
            return
        yield Finding("Prefect server", "ok", f"{address}, version {version}")
        yield _has(
            "blocks",
            lambda: [slug for slug in ("ags-config", "tencent-cloud-credentials") if not _block_type(client, slug)],
            "Install ags_flows beside the server, or run: prefect block register -m ags_flows",
        )
        yield _has(
            "automations",
            lambda: [] if client.read_automations_by_name(LOST_RUNS) else [LOST_RUNS],
            "Run: ags-flows automations",
        )
        yield _lease(config, client)
        yield _has(
            "schedules",
            lambda: [f"the next run of {name}" for name in _never_fires(client)],
            "A cron such as 0 0 30 2 * never fires. Else the server's services do not run: see its log.",
        )


def _lease(config: AGSConfig, client: SyncPrefectClient) -> Finding:
    """Compare the lease with the time after which the server detects a lost run."""
    try:
        automations = [known for known in client.read_automations() if known.enabled]
    except Exception as error:  # noqa: BLE001 - reported as a finding
        return Finding("lease", "wrong", f"{type(error).__name__}: {error}")
    detections = [found for known in automations if (found := detection_time(known)) is not None]
    if not detections:
        return Finding("lease", "skipped", "no automation on the Prefect server detects lost runs")
    holds, sentence = explain_lease(config.lease_seconds, min(detections))
    finding, _, remedy = sentence.partition(": ")
    return Finding("lease", "ok" if holds else "warning", finding, remedy)


def _never_fires(client: SyncPrefectClient) -> Iterator[str]:
    """Give the deployments that have an active schedule, and no run ahead: the server makes them within a minute."""
    ahead = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
    for deployment in client.read_deployments(limit=200):
        if deployment.paused or not any(schedule.active for schedule in deployment.schedules):
            continue
        chosen = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
        if not client.read_flow_runs(deployment_filter=chosen, flow_run_filter=FlowRunFilter(state=ahead), limit=1):
            yield f"{client.read_flow(deployment.flow_id).name}/{deployment.name}"


def _block_type(client: Any, slug: str) -> bool:
    from prefect.exceptions import ObjectNotFound

    try:
        return client.read_block_type_by_slug(slug) is not None
    except ObjectNotFound:
        return False


def _has(check: str, missing: Callable[[], list[str]], remedy: str) -> Finding:
    try:
        absent = missing()
    except Exception as error:  # noqa: BLE001 - told as a finding
        return Finding(check, "wrong", f"{type(error).__name__}: {error}")
    if absent:
        return Finding(check, "warning", f"missing: {', '.join(absent)}", remedy)
    return Finding(check, "ok", "there")


def _emulator() -> Finding:
    missing = [name for name in ("uvicorn", "starlette", "connectrpc", "jupyter_client") if not _installed(name)]
    if missing:
        told = f"not installed ({', '.join(missing)} missing)"
        return Finding("emulator", "skipped", told, "Only if you want one: pip install 'ags-flows[emulator]'")
    return Finding("emulator", "ok", "installed")


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _asked(check: str, ask: Callable[[], str], otherwise: Verdict = "wrong") -> Finding:
    try:
        return Finding(check, "ok", ask())
    except AGSFlowsError as error:
        origin = f" [{error.code}]" if error.code else ""
        return Finding(check, otherwise, f"{error.message}{origin}", error.hint or "")
