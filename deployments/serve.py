"""Serve the deployments of prefect.yaml from this process: no work pool, no worker.

`python deployments/serve.py [--limit RUNS] [NAME...]`, where a name is FLOW/DEPLOYMENT, such as `reap/nightly-reap`; by
default all. Runs are processes of this machine, at most RUNS at a time. Stop it with Ctrl-C: schedules are paused
until it is started again.
"""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

import yaml
from prefect import Flow, serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.deployments.runner import EntrypointType, RunnerDeployment
from prefect.flows import load_flow_from_entrypoint
from prefect.schedules import Cron, Schedule
from prefect.server.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL
from pydantic import ValidationError

from ags_flows.errors import AGSFlowsError, ConfigurationError
from ags_flows.run.automations import require_server

FILE = Path(__file__).parents[1] / "prefect.yaml"


def read_deployments(file: Path = FILE) -> dict[str, RunnerDeployment]:
    """Return the deployments of a prefect.yaml by their names.

    Raises:
        ConfigurationError: A schedule never fires, a flow is not there, or parameters do not fit it.
    """
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))["deployments"]
    except (OSError, UnicodeError, yaml.YAMLError, TypeError, KeyError) as error:
        raise ConfigurationError(f"{file} has no deployments that can be read: {error}.") from error
    return {name: deployment for name, deployment in (_deployment(entry) for entry in entries)}


def _deployment(entry: dict[str, Any]) -> tuple[str, RunnerDeployment]:
    try:
        flow: Flow[Any, Any] = load_flow_from_entrypoint(entry["entrypoint"].replace(":", "."))
    except (ImportError, AttributeError, KeyError) as error:
        raise ConfigurationError(f"{entry.get('name')}: {entry.get('entrypoint')!r} is not a flow: {error}.") from error
    name = f"{flow.name}/{entry['name']}"
    limit = entry.get("concurrency_limit")
    deployment = flow.to_deployment(
        entry["name"],
        parameters=entry.get("parameters"),
        description=entry.get("description"),
        tags=entry.get("tags"),
        schedules=[_schedule(name, one) for one in entry.get("schedules", [])],
        concurrency_limit=ConcurrencyLimitConfig(**limit) if isinstance(limit, dict) else limit,
        # From whatever directory this is started.
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(deployment, RunnerDeployment)
    return name, deployment


def _schedule(deployment: str, entry: dict[str, Any]) -> Schedule:
    cron, timezone = entry["cron"], entry.get("timezone", "UTC")
    try:
        asyncio.run(CronSchedule(cron=cron, timezone=timezone).get_dates(1))
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{deployment}: schedule {cron!r}: {reason}.") from None
    except ValueError:
        # What looks for the next date gives up after half a century.
        raise ConfigurationError(
            f"{deployment}: schedule {cron!r} ({timezone}) never fires: no date fits.", hint="Nothing is served."
        ) from None
    return Cron(cron, timezone=timezone, active=entry.get("active", True), slug=entry.get("slug"))


def main(arguments: list[str]) -> int:
    """Serve the deployments with these names until a signal stops it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="FLOW/DEPLOYMENT; by default all")
    parser.add_argument("--limit", type=int, default=4, help="concurrent flow runs (default: 4)")
    chosen = parser.parse_args(arguments)
    try:
        known = read_deployments()
        if unknown := [name for name in chosen.names if name not in known]:
            raise ConfigurationError(f"There is no deployment {unknown[0]!r}.", hint=f"There are: {', '.join(known)}.")
        if not PREFECT_API_URL.value():
            raise ConfigurationError("PREFECT_API_URL is not set.", hint="Start a server: prefect server start.")
        require_server()
    except AGSFlowsError as error:
        print(error, file=sys.stderr)
        return 1
    serve(*[known[name] for name in chosen.names or known], limit=chosen.limit)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
