"""`ags-flows doctor`: whether everything is there that a nightly run needs, and if not, what to do."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
from packaging.requirements import Requirement
from packaging.version import Version
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.settings import PREFECT_API_URL

from ags_flows import collection
from ags_flows.blocks import AGSConfig
from ags_flows.cli.listing import Column
from ags_flows.cloud.certificates import verification
from ags_flows.cloud.connection import Connection
from ags_flows.cloud.probing import probe_data_plane
from ags_flows.cloud.proxies import proxy_for
from ags_flows.errors import AGSFlowsError, UnreachableError
from ags_flows.run.automations import LOST_RUNS, detection_time, explain_lease

STYLES = {"ok": "green", "warning": "yellow", "wrong": "bold red", "skipped": "dim"}
COLUMNS = (
    Column("check", whole=True),
    Column("verdict", style=lambda verdict: STYLES[verdict], whole=True),
    Column("finding", folded=True),
    Column("remedy", "what to do", folded=True),
)
MOST_SKEW = 300
"""Seconds; AGS refuses signatures that are older or newer by more."""

BLOCK_TYPES = tuple(getattr(collection, name).get_block_type_slug() for name in collection.__all__)
MOST_DEPLOYMENTS = 200
SHOWN = 5

PINNED_BY_ITSELF = Version("3.9.1")
"""The first Prefect release that asks for versions of these packages with which its server works."""

SERVER_PACKAGES = ("fastapi", "sqlalchemy")
"""With newer releases of these, the server of older Prefect releases does not start, or creates no scheduled runs."""

Verdict = Literal["ok", "warning", "wrong", "skipped"]


@dataclass(frozen=True)
class Finding:
    """What one check found, and what to do about it."""

    check: str
    verdict: Verdict
    finding: str
    remedy: str = ""

    def row(self) -> dict[str, Any]:
        """Return it as a row of a listing."""
        return asdict(self)


def examined(examine: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """Return all findings, or only one if the configuration is not valid."""
    try:
        return list(examine())
    except AGSFlowsError as error:
        return [Finding("configuration", "wrong", error.message, error.hint or "")]


def examine(config: AGSConfig | None = None) -> Iterator[Finding]:
    """Return one finding after the other. If a check fails that others need, those are skipped.

    Raises:
        AGSFlowsError: The configuration is wrong.
    """
    config = config or AGSConfig()
    connection = config.connection()
    yield Finding("configuration", "ok", f"{connection.control_url}, region {connection.region}")
    try:
        connection.require_keys()
    except AGSFlowsError as error:
        yield Finding("credentials", "wrong", error.message, error.hint or "")
        yield Finding("AGS", "skipped", "not asked without credentials")
    else:
        yield from _ags(config)
    yield from _prefect(config)
    yield _packages()
    yield _emulator()


def _ags(config: AGSConfig) -> Iterator[Finding]:
    connection = config.connection()
    url = connection.control_url
    try:
        response = httpx.head(
            url, timeout=10.0, verify=verification(connection.verify_tls), proxy=proxy_for(url), trust_env=False
        )
    except (AGSFlowsError, httpx.HTTPError, ValueError) as error:
        local = urlsplit(url).hostname in ("127.0.0.1", "localhost")
        emulator = "Is the emulator running there? `ags-flows emulator` starts one. " if local else ""
        yield Finding(
            "AGS",
            "wrong",
            f"{url} does not respond: {error}",
            f"{emulator}Check AGS_ENDPOINT, the network and the proxy variables.",
        )
        yield Finding("credentials", "skipped", "AGS does not respond")
        return
    yield Finding("AGS", "ok", f"{url} responds")
    yield _clock(response)
    control = config.control_plane()
    yield _data_plane(connection)
    tools = _asked("credentials", lambda: f"accepted; {len(control.list_tools())} tools")
    yield tools
    if tools.verdict == "ok":
        yield _asked("quota", lambda: str(control.quotas()) or "not known", "warning")
        if not config.role_arn and connection.data_url is None:
            yield Finding(
                "role",
                "warning",
                "role_arn is not set",
                "Images of private registries, COS and CFS need one: TENCENTCLOUD_ROLE_ARN, or the field role_arn.",
            )


def _clock(response: httpx.Response) -> Finding:
    try:
        skew = (datetime.now(timezone.utc) - parsedate_to_datetime(response.headers["date"])).total_seconds()
    except (KeyError, TypeError, ValueError):
        return Finding("clock", "skipped", "the response of AGS has no date")
    late = abs(skew) > MOST_SKEW
    remedy = "Set this machine's clock: AGS refuses its signatures." if late else ""
    return Finding("clock", "wrong" if late else "ok", f"{abs(skew):.0f} s from that of AGS", remedy)


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
            "PREFECT_API_URL is not set: each flow run starts a temporary server",
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
                f"{address} does not respond: {type(error).__name__}: {error}",
                "Check PREFECT_API_URL, and whether the server runs.",
            )
            return
        yield Finding("Prefect server", "ok", f"{address}, version {version}")
        yield _has(
            "blocks",
            lambda: [slug for slug in BLOCK_TYPES if not _has_block_type(client, slug)],
            "Install ags_flows beside the server, or run: prefect block register -m ags_flows",
        )
        yield _has(
            "automations",
            lambda: [] if client.read_automations_by_name(LOST_RUNS) else [LOST_RUNS],
            "Run: ags-flows automations",
        )
        yield _lease(config, client)
        yield _workers(client)
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


def _workers(client: SyncPrefectClient) -> Finding:
    """Look for deployments whose runs no process would pick up."""
    try:
        waiting = [one for one in _deployments(client) if not one.paused and one.status != "READY"]
    except Exception as error:  # noqa: BLE001 - reported as a finding
        return Finding("workers", "wrong", f"{type(error).__name__}: {error}")
    if not waiting:
        return Finding("workers", "ok", "every deployment has a worker or a process that serves it")
    names = [f"{client.read_flow(one.flow_id).name}/{one.name}" for one in waiting[:SHOWN]]
    more = f", and {len(waiting) - SHOWN} more" if len(waiting) > SHOWN else ""
    pools = sorted({one.work_pool_name for one in waiting if one.work_pool_name})
    start = [f"`prefect worker start --pool {name}`" for name in pools]
    if any(one.work_pool_name is None for one in waiting):
        start.append("the process that serves them")
    return Finding(
        "workers", "warning", f"nothing executes the runs of {', '.join(names)}{more}", f"Start {' and '.join(start)}."
    )


def _deployments(client: SyncPrefectClient) -> list[DeploymentResponse]:
    return client.read_deployments(limit=MOST_DEPLOYMENTS)


def _never_fires(client: SyncPrefectClient) -> Iterator[str]:
    """Return the deployments that have an active schedule and no run ahead: the server creates runs within a minute."""
    ahead = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
    for deployment in _deployments(client):
        if deployment.paused or not any(schedule.active for schedule in deployment.schedules):
            continue
        chosen = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
        if not client.read_flow_runs(deployment_filter=chosen, flow_run_filter=FlowRunFilter(state=ahead), limit=1):
            yield f"{client.read_flow(deployment.flow_id).name}/{deployment.name}"


def _has_block_type(client: SyncPrefectClient, slug: str) -> bool:
    from prefect.exceptions import ObjectNotFound

    try:
        return client.read_block_type_by_slug(slug) is not None
    except ObjectNotFound:
        return False


def _has(check: str, missing: Callable[[], list[str]], remedy: str) -> Finding:
    try:
        absent = missing()
    except Exception as error:  # noqa: BLE001 - reported as a finding
        return Finding(check, "wrong", f"{type(error).__name__}: {error}")
    if absent:
        return Finding(check, "warning", f"missing: {', '.join(absent)}", remedy)
    return Finding(check, "ok", "there")


def _packages() -> Finding:
    """Look for packages that are too new for the Prefect server of this environment."""
    known = {}
    for name in ("prefect", *SERVER_PACKAGES):
        try:
            known[name] = Version(version(name))
        except PackageNotFoundError:
            # The small `prefect-client` has no server.
            return Finding("packages", "skipped", f"{name} is not installed: there is no Prefect server here")
    versions = ", ".join(f"{name} {found}" for name, found in known.items())
    limits = {"fastapi": _limit_of_fastapi(), "sqlalchemy": Version("2.1")}
    wrong = [name for name, limit in limits.items() if known[name] >= limit]
    if known["prefect"] >= PINNED_BY_ITSELF or not wrong:
        return Finding("packages", "ok", versions)
    wanted = " ".join(f"'{name}<{limits[name]}'" for name in wrong)
    return Finding(
        "packages",
        "warning",
        f"{versions}: a Prefect server of this environment does not start, or creates no scheduled runs",
        f"pip install {wanted}, or upgrade Prefect to {PINNED_BY_ITSELF} or later.",
    )


def _limit_of_fastapi() -> Version:
    """Return the first FastAPI release that the installed Prefect does not work with, although it may allow it.

    FastAPI changed its router in 0.139, to which Prefect 3.7 adapted, and its parameters in 0.151.
    """
    asked = next(Requirement(one) for one in requires("prefect") or () if one.startswith("fastapi"))
    return Version("0.139" if asked.specifier.contains("0.138") else "0.151")


def _emulator() -> Finding:
    missing = [name for name in ("uvicorn", "starlette", "connectrpc", "jupyter_client") if not _installed(name)]
    if missing:
        finding = f"not installed ({', '.join(missing)} missing)"
        return Finding("emulator", "skipped", finding, "Only if you want one: pip install 'ags-flows[emulator]'")
    return Finding("emulator", "ok", "installed")


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _asked(check: str, ask: Callable[[], str], otherwise: Verdict = "wrong") -> Finding:
    try:
        return Finding(check, "ok", ask())
    except AGSFlowsError as error:
        origin = f" [{error.code}]" if error.code else ""
        return Finding(check, otherwise, f"{error.message}{origin}", error.hint or "")
