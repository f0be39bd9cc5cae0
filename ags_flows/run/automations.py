"""Automations as files: what a Prefect server does when a run is lost, crashes, or a batch fails.

A file is YAML in Prefect's own form: one automation, or several under `automations:`. In it, what a server knows by an
id stands by its name: `deployment: reap/reap-one-run`, `block: custom-webhook/operators`. An automation is identified
by its name: applied again, it is updated, and never created twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import yaml
from prefect.automations import Automation, AutomationCore
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from pydantic import ValidationError

from ags_flows.errors import ConfigurationError, UnreachableError
from ags_flows.models.durations import format_duration
from ags_flows.ownership import RENEW_AT

LOST_RUNS = "ags-flows: mark lost runs as crashed"
"""The automation that every server needs: nothing else notices a run whose runner and engine were both killed."""

SHIPPED = "deployments/automations"
HEARTBEAT = "prefect.flow-run.heartbeat"
Change = Literal["created", "changed", "left"]


@dataclass(frozen=True)
class SyncedAutomation:
    """One automation, and what was done to bring the server in step with its file.

    Attributes:
        name: The automation's name.
        change: What was done.
        detection: Seconds after which the automation detects a lost run. None if it does not detect lost runs.
    """

    name: str
    change: Change
    detection: float | None = None


def lost_runs_file() -> Path:
    """Return the file of `LOST_RUNS`: in the package where it is installed, else in the repository."""
    name = "lost-runs.yaml"
    package = Path(__file__).parents[1]
    installed = package / name
    return installed if installed.exists() else package.parent / SHIPPED / name


def detection_time(automation: Automation | AutomationCore) -> float | None:
    """Return the seconds without a heartbeat after which an automation acts, None if it does not watch heartbeats."""
    trigger = automation.trigger
    if isinstance(trigger, EventTrigger) and trigger.posture is Posture.Proactive and HEARTBEAT in trigger.after:
        return trigger.within.total_seconds()
    return None


def explain_lease(lease: int, detection: float) -> tuple[bool, str]:
    """Compare a lease with the time after which lost runs are detected.

    A process renews a lease after a quarter of its life. So three quarters are left for the retry of a run whose
    process was killed, and they must be longer than the detection takes.

    Args:
        lease: Seconds.
        detection: Seconds after the latest heartbeat.

    Returns:
        Whether the rule holds, and a sentence with both figures.
    """
    left = lease * (1 - RENEW_AT)
    figures = f"a killed process leaves {left:g} s of the lease ({format_duration(lease)})"
    if left > detection:
        return True, f"{figures}, more than the {detection:g} s after which its run is marked as Crashed"
    needed = format_duration(int(detection / (1 - RENEW_AT)) + 1)
    return False, (
        f"{figures}, but its run is marked as Crashed only after {detection:g} s, when AGS may have stopped its "
        f"sandbox: set a lease of at least {needed} (AGS_LEASE, or the field lease of AGSConfig), or a shorter `within`"
    )


def sync_automations(files: Iterable[Path | str] = ()) -> list[SyncedAutomation]:
    """Bring the automations of a Prefect server in step with files. All are checked before the first is changed.

    Whether one is switched on stays as it was on the server, unless its file has `enabled`.

    Args:
        files: YAML files; by default that of `LOST_RUNS` alone.

    Raises:
        ConfigurationError: A file is wrong, or names a deployment or a block that the server lacks. Nothing was done.
        UnreachableError: The Prefect server did not respond.
    """
    documents = [document for file in [*files] or [lost_runs_file()] for document in _documents(Path(file))]
    names = [str(document.get("name")) for _, document in documents]
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigurationError(f"Two automations have the name {doubles[0]!r}.", hint="Nothing was changed.")
    with answering(), get_client(sync_client=True) as client:
        wanted = [(_automation(file, document, client), document) for file, document in documents]
        return [_apply(automation, "enabled" in document, client) for automation, document in wanted]


@contextmanager
def answering() -> Iterator[None]:
    """Convert errors of Prefect's client to errors with one clear sentence.

    Raises:
        UnreachableError: Instead of what the HTTP client raises.
        ConfigurationError: The server refused a request.
    """
    try:
        yield
    except (httpx.HTTPError, RuntimeError) as error:
        if isinstance(error, PrefectHTTPStatusError) and error.response.status_code < 500:
            raise ConfigurationError(
                f"The Prefect server refused a request: {error}".split(" - For more")[0]
            ) from error
        raise UnreachableError(
            f"The Prefect server does not respond: {type(error).__name__}: {error}".split("\n")[0],
            hint="Check PREFECT_API_URL, and whether the server runs.",
        ) from error


def require_server() -> None:
    """Check that the Prefect server of the settings responds.

    Raises:
        UnreachableError: There is no response.
    """
    with answering(), get_client(sync_client=True) as client:
        client.hello()


def _documents(file: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}.", hint="Nothing was changed.") from error
    except (UnicodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{file} cannot be read as YAML: {error}.", hint="Nothing was changed.") from error
    several = content.get("automations", [content]) if isinstance(content, dict) else content
    if not isinstance(several, list) or not several or not all(isinstance(one, dict) for one in several):
        raise ConfigurationError(f"{file} holds no automation.", hint="One mapping, or a list under `automations:`.")
    yield from ((file, one) for one in several)


def _automation(file: Path, document: dict[str, Any], client: SyncPrefectClient) -> AutomationCore:
    actions = [_resolved(file, action, client) for action in document.get("actions", [])]
    name = document.get("name", "an automation without a name")
    try:
        automation = AutomationCore.model_validate({**document, "actions": actions})
    except ValidationError as error:
        wrong = "; ".join(_findings(error))
        raise ConfigurationError(f"{file}: {name} is not valid. {wrong}.", hint="Nothing was changed.") from None
    # Since Prefect 3.9 its client takes an action of any type, for servers that are newer than it; ours is not.
    unknown = [action.type for action in automation.actions if type(action).__name__ == "UnknownAction"]
    if unknown:
        wrong = f"{unknown[0]!r} is not a type of action that Prefect knows"
        raise ConfigurationError(f"{file}: {name} is not valid. {wrong}.", hint="Nothing was changed.")
    return automation


def _findings(error: ValidationError) -> list[str]:
    """Return what is wrong, without pydantic's messages on every other kind of action and trigger."""
    told = [(".".join(str(part) for part in one["loc"]), one) for one in error.errors(include_url=False)]
    kinds = [(place, one) for place, one in told if one["type"] == "literal_error" and place.endswith("type")]
    others = tuple(place.removesuffix("type") for place, _ in kinds)
    fitting = [f"{place}: {one['msg']}" for place, one in told if not place.startswith(others)]
    return fitting or sorted({f"{one['input']!r} is not a type that Prefect knows" for _, one in kinds})


def _resolved(file: Path, action: dict[str, Any], client: SyncPrefectClient) -> dict[str, Any]:
    """Return an action with ids in the place of names."""
    resolved = dict(action)
    if name := resolved.pop("deployment", None):
        resolved["deployment_id"] = _looked_up(
            lambda: client.read_deployment_by_name(str(name)).id,
            f"{file}: the Prefect server has no deployment {name!r}.",
            "Deploy it first: prefect deploy --all, or deployments/serve.py. Nothing was changed.",
        )
    if reference := resolved.pop("block", None):
        slug, _, document = str(reference).partition("/")
        resolved["block_document_id"] = _looked_up(
            lambda: client.read_block_document_by_name(document, slug).id,
            f"{file}: the Prefect server has no block {reference!r}.",
            "Create it first: python blocks/register.py, or in the UI under Blocks. Nothing was changed.",
        )
    return resolved


def _looked_up(look: Callable[[], Any], message: str, hint: str) -> Any:
    try:
        return look()
    except (ObjectNotFound, ValueError):
        raise ConfigurationError(message, hint=hint) from None


def _apply(wanted: AutomationCore, decided: bool, client: SyncPrefectClient) -> SyncedAutomation:
    known, detection = client.read_automations_by_name(wanted.name), detection_time(wanted)
    if not known:
        client.create_automation(wanted)
        return SyncedAutomation(wanted.name, "created", detection)
    for double in known[1:]:
        client.delete_automation(double.id)
    if not decided:
        wanted = wanted.model_copy(update={"enabled": known[0].enabled})
    if _content(known[0]) == _content(wanted):
        return SyncedAutomation(wanted.name, "changed" if known[1:] else "left", detection)
    # The client sends what was set: an action that the file has not any more is to go.
    client.update_automation(known[0].id, AutomationCore.model_validate(wanted.model_dump(exclude={"owner_resource"})))
    return SyncedAutomation(wanted.name, "changed", detection)


def _content(automation: Automation | AutomationCore) -> Any:
    """Return what an automation is, without what the server gives it, in an order that does not depend on sets."""
    return _ordered({name: getattr(automation, name) for name in AutomationCore.model_fields})


def _ordered(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    if isinstance(value, dict):
        return {name: _ordered(one) for name, one in value.items() if name not in ("id", "automation_id")}
    if isinstance(value, list | set | tuple):
        return sorted((_ordered(one) for one in value), key=repr)
    return value
