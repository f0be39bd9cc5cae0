"""Checks of instances: their start, their listing, their end."""

from __future__ import annotations

import time

from ags_flows.errors import AGSFlowsError, NotFoundError
from ags_flows.models import Instance
from ags_flows.verify.account import Account
from ags_flows.verify.check import Different, Group, expect
from ags_flows.verify.watch import watch

GROUP = Group("instances", instances=3)
LOOKS = 10


@GROUP.check
def start_returns_a_status(account: Account) -> str:
    """A start returns an instance that is STARTING or RUNNING."""
    instance = account.started("second")
    account.answers["start.status"] = instance.status
    expect(instance.status in ("STARTING", "RUNNING"), instance.status)
    return instance.status


@GROUP.check
def instance_becomes_running(account: Account) -> str:
    """An instance becomes RUNNING."""
    instance = account.instance("second")
    expect(instance.status == "RUNNING", instance.status)
    return f"after {account.answers['start.seconds']:.1f} s more"


def _listed(account: Account, instance: Instance) -> float:
    """Wait until an instance is in the list of its tool; return when it was, by the monotonic clock."""

    def look() -> bool | None:
        return instance.id in {one.id for one in account.control.list_instances(tool=account.tool.id)} or None

    return watch(look, 60, f"the instance {instance.id} is not listed")[1]


@GROUP.check
def new_instance_is_listed(account: Account) -> str:
    """A new instance is listed within five seconds."""
    instance = account.started("listed")
    began = time.monotonic()
    seconds = _listed(account, instance) - began
    account.sample("list.seconds", seconds)
    account.stop(instance)
    expect(seconds < 5, f"after {seconds:.1f} s")
    return f"after {seconds:.1f} s"


@GROUP.check
def list_does_not_flicker(account: Account) -> str:
    """An instance that was listed stays listed while it runs."""
    instance = account.instance()
    _listed(account, instance)
    missed = sum(not account.control.list_instances(ids=[instance.id]) for _ in range(LOOKS))
    missed += sum(
        instance.id not in {one.id for one in account.control.list_instances(tool=account.tool.id)}
        for _ in range(LOOKS)
    )
    account.answers["list.misses"] = round(missed / (2 * LOOKS), 2)
    expect(not missed, f"missing in {missed} of {2 * LOOKS} looks")
    return f"{2 * LOOKS} looks"


@GROUP.check
def metadata_comes_back(account: Account) -> None:
    """Metadata of a start is listed with the instance."""
    metadata = account.look(account.instance().id).metadata
    expect(metadata.get("ags-flows-verify") == account.run, sorted(metadata))


@GROUP.check
def metadata_is_merged(account: Account) -> str:
    """New metadata is added to the existing metadata."""
    account.control.update_instance(account.instance().id, metadata={"verify-added": "1"})
    metadata = account.look(account.instance().id).metadata
    account.answers["metadata.update"] = "merge" if "name" in metadata else "replace"
    expect(metadata.get("verify-added") == "1", "the new entry is missing")
    expect("name" in metadata, "the existing entries are gone")
    return "merged"


@GROUP.check
def status_is_a_filter(account: Account) -> None:
    """Instances are filtered by their status."""
    instance = account.instance()
    _listed(account, instance)
    for status, listed in (("RUNNING", True), ("PAUSED", False)):
        found = account.control.call(
            "DescribeSandboxInstanceList",
            {"ToolId": account.tool.id, "Filters": [{"Name": "Status", "Values": [status]}]},
        )
        ids = {one["InstanceId"] for one in found["InstanceSet"]}
        expect((instance.id in ids) == listed, f"{status}: {len(ids)} instances")


def _start_twice(account: Account) -> tuple[str, str]:
    """Send one start twice; return the id of the instance, and what the repeat returned: an id or an error's code."""
    request = {"ToolId": account.tool.id, "Timeout": "5m", "ClientToken": f"{account.run}-twice"}
    first = account.control.call("StartSandboxInstance", request)["Instance"]["InstanceId"]
    account.keep(first)
    try:
        second = account.control.call("StartSandboxInstance", request)["Instance"]["InstanceId"]
    except AGSFlowsError as error:
        account.codes["FailedOperation.DuplicateRequest"] = second = error.code or type(error).__name__
    else:
        account.keep(second)
        account.release(second)
    account.release(first)
    return first, second


@GROUP.check
def repeated_token_starts_no_second_instance(account: Account) -> str:
    """A repeated ClientToken starts no second instance."""
    first, second = account.once("twice", lambda: _start_twice(account))
    account.answers["start.repeat"] = "replay" if first == second else "refuse"
    expect(not account.is_kept(second) or first == second, "a second instance")
    return "the same instance" if first == second else f"refused with {second}"


@GROUP.check
def token_of_another_request_is_refused(account: Account) -> str:
    """A ClientToken that was used for another request is refused."""
    account.once("twice", lambda: _start_twice(account))
    request = {"ToolId": account.tool.id, "Timeout": "6m", "ClientToken": f"{account.run}-twice"}
    try:
        started = account.control.call("StartSandboxInstance", request)["Instance"]["InstanceId"]
    except AGSFlowsError as error:
        account.codes.setdefault("FailedOperation.DuplicateRequest", error.code or "")
        expect(error.code == "FailedOperation.DuplicateRequest", error.code)
        return error.code or ""
    account.keep(started)
    raise Different("it was accepted")


@GROUP.check
def stopped_instance_ends(account: Account) -> str:
    """An instance that is stopped becomes STOPPED, and stays listed for a while."""
    instance = account.instance("second")
    account.stop(instance)
    try:
        found = account.look(instance.id)
    except NotFoundError:
        account.answers["stopped.listed"] = False
        raise Different("it is not listed any more") from None
    account.answers["stopped.listed"] = True
    expect(found.status == "STOPPED", found.status)
    expect((found.stop_reason or "").lower() == "manual", f"reason {found.stop_reason!r}")
    return f"after {account.answers['stop.seconds']:.1f} s"


@GROUP.check
def second_stop_is_refused(account: Account) -> str:
    """A second stop is refused, and harmless."""
    instance = account.instance("second")
    account.control.stop_instance(instance.id)
    account.until(instance, "STOPPED")
    return account.refusal("UnsupportedOperation.SandboxInstance", "StopSandboxInstance", {"InstanceId": instance.id})
