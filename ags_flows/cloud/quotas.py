"""Quotas and usage of the account, also in the error when a quota is reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ags_flows.errors import AGSFlowsError, QuotaExceededError
from ags_flows.models import Quota, QuotaOverview

Call = Callable[[str, dict[str, Any]], Mapping[str, Any]]

_FIELDS = {
    "tools": "SandboxTools",
    "instances": "SandboxInstances",
    "paused_instances": "PausedInstances",
    "cpu_cores": "CPUCores",
    "memory_gib": "MemoryGiB",
}


def quota_overview(call: Call) -> QuotaOverview:
    """Return quotas and usage of the account in this region."""
    account = call("DescribeQuotaOverview", {}).get("AccountQuotaOverview") or {}
    limits, usage = account.get("Quota") or {}, account.get("Usage") or {}
    known = {
        name: Quota(limit=limits[field], used=usage.get(field) or 0)
        for name, field in _FIELDS.items()
        if limits.get(field) is not None
    }
    return QuotaOverview(**known)


def with_usage(call: Call, error: QuotaExceededError) -> QuotaExceededError:
    """Return the error with the current usage, if AGS reports it: the user sees what to free."""
    try:
        overview = quota_overview(call)
    except AGSFlowsError:
        return error
    return type(error)(
        f"{error.message} In use now: {overview}.",
        hint=error.hint,
        code=error.code,
        request_id=error.request_id,
        retry_after=error.retry_after,
    )
