"""The automation that a Prefect server needs to notice runs that nobody owns any more.

Prefect marks a run as crashed when its runner sees the engine die. When the runner dies too, the run stays RUNNING for
ever: no service of the server looks for it. This automation does, by the heartbeats that engines send.
"""

from __future__ import annotations

from datetime import timedelta

from prefect.automations import AutomationCore, ChangeFlowRunState, EventTrigger, Posture
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType

LOST_RUNS = "ags-flows: mark lost runs as crashed"
DEFAULT_WITHIN = timedelta(minutes=9)
"""Three of Prefect's heartbeats, which come every 180 seconds by default."""

_HEARTBEAT = "prefect.flow-run.heartbeat"
_ENDS = ("Completed", "Failed", "Crashed", "Cancelled", "Cancelling", "Paused", "Suspended", "AwaitingRetry")


def lost_runs(within: timedelta = DEFAULT_WITHIN) -> AutomationCore:
    """Return the automation: a run that sent a heartbeat, and then neither another one nor an end, has crashed.

    Args:
        within: How long heartbeats may be missing: at least three times `PREFECT_FLOWS_HEARTBEAT_FREQUENCY`.
    """
    return AutomationCore(
        name=LOST_RUNS,
        description="Made by ags_flows. A run whose runner and engine were both killed can be retried after this.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            after={_HEARTBEAT},
            expect={_HEARTBEAT, *(f"prefect.flow-run.{end}" for end in _ENDS)},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            threshold=1,
            within=within,
        ),
        actions=[
            ChangeFlowRunState(name=None, state=StateType.CRASHED, message="Its heartbeats stopped.", force=False)
        ],
    )


def sync_automations(within: timedelta = DEFAULT_WITHIN) -> bool:
    """Create the automation on the Prefect server, or bring the one of that name up to date.

    Returns:
        Whether it was created.
    """
    wanted = lost_runs(within)
    with get_client(sync_client=True) as client:
        known = client.read_automations_by_name(LOST_RUNS)
        if not known:
            client.create_automation(wanted)
            return True
        client.update_automation(known[0].id, wanted)
        for double in known[1:]:
            client.delete_automation(double.id)
        return False
