"""Lists of AGS as the SDK's own objects (`.SandboxToolSet[0].ToolName`), any number of items long."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from tencentcloud.ags.v20250920 import models

from ags_flows.cloud import wire
from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.cloud.paging import by_offset, by_token, chunks, take
from ags_flows.errors import ConfigurationError
from ags_flows.models.checks import check_instance_id


def describe_tools(
    control: ControlPlane,
    *,
    ids: Sequence[str] | None = None,
    name: str | None = None,
    type: str | None = None,
    status: str | None = None,
    tags: Mapping[str, str] | None = None,
    limit: int | None = None,
    offset: int = 0,
) -> models.DescribeSandboxToolListResponse:
    """Return `limit` tools (None: all) from `offset` on; conditions must all hold. `TotalCount` counts all that match.

    Raises:
        ConfigurationError: `limit` or `offset` is negative.
    """
    if offset < 0:
        raise ConfigurationError(f"offset={offset} is negative.", hint="Leave it out to begin with the first.")
    filters = _filters(ToolName=name, ToolType=type, Status=status)
    filters += [{"Name": "Tag", "Values": [f"{key}={value}"]} for key, value in (tags or {}).items()]
    counted = _Counted(control)
    if ids is None:
        pages = by_offset(counted, "DescribeSandboxToolList", wire.present(Filters=filters), "SandboxToolSet", offset)
    else:
        pages = islice(
            (
                item
                for chunk in chunks(ids)
                for item in by_offset(
                    counted, "DescribeSandboxToolList", wire.present(ToolIds=chunk, Filters=filters), "SandboxToolSet"
                )
            ),
            offset,
            None,
        )
    return _response(models.DescribeSandboxToolListResponse, counted, SandboxToolSet=take(pages, limit))


def describe_instances(
    control: ControlPlane,
    *,
    ids: Sequence[str] | None = None,
    tool_id: str | None = None,
    tool_name: str | None = None,
    status: str | None = None,
    limit: int | None = None,
) -> models.DescribeSandboxInstanceListResponse:
    """Return `limit` instances (None: all); conditions must all hold. `TotalCount` counts all that match.

    Raises:
        ConfigurationError: `limit` is negative, or an id is not valid.
    """
    filters = _filters(ToolName=tool_name, Status=status)
    counted = _Counted(control)
    wanted = None if ids is None else [check_instance_id(one) for one in ids]
    pages = (
        item
        for chunk in chunks(wanted)
        for item in by_token(
            counted,
            "DescribeSandboxInstanceList",
            wire.present(InstanceIds=chunk, ToolId=tool_id, Filters=filters, NeedTotalCount=True),
            "InstanceSet",
        )
    )
    return _response(models.DescribeSandboxInstanceListResponse, counted, InstanceSet=take(pages, limit))


class _Counted:
    """A control plane's `call` that remembers what was counted, and the last RequestId."""

    def __init__(self, control: ControlPlane) -> None:
        self._control = control
        self._counts: dict[str, int] = {}
        self.request_id = ""

    def __call__(self, action: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = self._control.call(action, parameters)
        # Each request with ids counts its own items; all pages of one list have the same total.
        subject = json.dumps([parameters.get("ToolIds"), parameters.get("InstanceIds")])
        self._counts[subject] = answer.get("TotalCount") or 0
        self.request_id = answer.get("RequestId") or self.request_id
        return answer

    @property
    def total(self) -> int:
        return sum(self._counts.values())


def _filters(**conditions: str | None) -> list[dict[str, Any]]:
    return [{"Name": name, "Values": [value]} for name, value in wire.present(**conditions).items()]


def _response(kind: Any, counted: _Counted, **fields: Any) -> Any:
    response = kind()
    response.from_json_string(json.dumps({**fields, "TotalCount": counted.total, "RequestId": counted.request_id}))
    return response
