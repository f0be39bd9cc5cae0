"""Tasks for sandbox tools."""

from __future__ import annotations

from collections.abc import Mapping

from ags_flows.blocks import AGSConfig, resolve_config
from ags_flows.errors import ConfigurationError, NotFoundError, ToolFailedError
from ags_flows.lifecycle.create_once import create_tool_once
from ags_flows.lifecycle.ensure_tool import delete_drained, ensure
from ags_flows.lifecycle.tool_marks import OURS, SPEC_TAG
from ags_flows.lifecycle.waiting import wait_tool_active as _wait_tool_active
from ags_flows.models import (
    Computer,
    CustomConfiguration,
    EnsuredTool,
    Network,
    Resources,
    Tool,
    ToolSpec,
    registry_type_of,
)
from ags_flows.run.awaitable import flag_of_wait
from ags_flows.run.events import tell_tool
from ags_flows.run.holder import identify
from ags_flows.run.logs import run_logger
from ags_flows.run.task_options import sandbox_task


def resolve_spec(spec: ToolSpec, config: AGSConfig) -> ToolSpec:
    """Return the spec; image, resources, role and mount default to the configuration's."""
    update: dict[str, object] = {}
    if spec.type == "custom":
        if spec.image is None:
            update["image"] = config.image
        if spec.image_registry_type is None:
            known = registry_type_of(spec.image or config.image)
            update["image_registry_type"] = known or config.image_registry_type
        if spec.resources is None:
            update["resources"] = Resources(cpu=config.cpu, memory=config.memory)
        if not spec.mounts and config.mounts():
            update["mounts"] = config.mounts()
    if spec.role_arn is None and config.role_arn:
        update["role_arn"] = config.role_arn
    if not update:
        return spec
    # Validated again, so that the rules hold for the configuration's part too.
    return ToolSpec(**{**{name: getattr(spec, name) for name in spec.model_fields_set | {"name"}}, **update})


def tool_id(tool: Tool | str) -> str:
    """Return the id, or the name, that a caller gave for a tool."""
    reference = tool.id if isinstance(tool, Tool) else tool
    if not reference:
        raise ConfigurationError("tool is empty.", hint="Give a Tool, or a tool's name or id.")
    return reference


@sandbox_task("create tool", "spec")
def create_tool(spec: ToolSpec, step: str = "", config: AGSConfig | str | None = None) -> Tool:
    """Create a sandbox tool. AGS makes it ready in the background: see `wait_tool_active`.

    A tool of that name that this package made from an equal spec is found and returned, whatever created it: a retry,
    a parallel task or an earlier flow run. One that is being deleted is waited for; one that is FAILED is replaced.

    Args:
        spec: The tool. Image, resources, role and mount default to the configuration's.
        step: Your name for the step, for logs.
        config: Where AGS is, or the name of a saved block; by default the environment.

    Returns:
        The tool, usually in state CREATING.

    Raises:
        ConfigurationError: A field breaks a rule; nothing was sent.
        ConflictError: A tool of that name exists, and is another one.

    Example:
        ```python
        tool = create_tool(ToolSpec(name="etl", image="python:3.11"))
        ```
    """
    config = resolve_config(config)
    control = config.control_plane()
    resolved = resolve_spec(spec, config)
    tool, found = create_tool_once(control, resolved, identify("create_tool", resolved.name, step=step))
    run_logger().info("%s tool %s (%s)", "Found" if found else "Created", tool.name, tool.id)
    tell_tool("adopted" if found else "created", tool)
    return tool


@sandbox_task("ensure tool", "spec")
def ensure_tool(
    spec: ToolSpec, replace: bool = True, drain: float = 0.0, config: AGSConfig | str | None = None
) -> EnsuredTool:
    """Return the tool of that name, ACTIVE and as the spec has it: found, created, updated or replaced.

    AGS changes container, description, tags, network and computer of a tool in place; running instances keep what
    they have. Type, role, mounts, logs, default timeout and persistence need another tool in its place, and so does
    one that is FAILED. A tool that this package did not make is taken when nothing is seen to differ, and is never
    changed. Tags that others put on a tool stay.

    Args:
        spec: The tool. Image, resources, role and mount default to the configuration's.
        replace: Whether the tool may be deleted and created again for what AGS cannot change.
        drain: Seconds that its instances have to end before it is replaced; 0 refuses while there are any.
        config: Where AGS is, or the name of a saved block; by default the environment.

    Returns:
        The tool; `outcome` and `changed` show what was done.

    Raises:
        ConfigurationError: The tool differs, and this package did not create it or may not replace it.
        ConflictError: It must be replaced, but instances still use it; the message names some.
        ToolFailedError: It did not become ACTIVE; the message has AGS's reason.

    Example:
        ```python
        tool = ensure_tool(ToolSpec(name="etl", image="python:3.11", env={"MODE": "fast"}))
        print(tool.outcome, tool.changed)
        ```
    """
    config = resolve_config(config)
    resolved = resolve_spec(spec, config)
    step = identify("ensure_tool", resolved.name)
    tool = ensure(config.control_plane(), resolved, step, replace=replace, drain=drain, timeout=config.startup_timeout)
    changed = f": {', '.join(tool.changed)}" if tool.changed else ""
    if tool.outcome != "found":
        tell_tool(tool.outcome, tool, changed=list(tool.changed))
    run_logger().info("%s tool %s (%s)%s", tool.outcome.capitalize(), tool.name, tool.id, changed)
    return tool


@sandbox_task("wait for tool", "tool")
def wait_tool_active(tool: Tool | str, timeout: float | None = None, config: AGSConfig | str | None = None) -> Tool:
    """Wait until a tool is ACTIVE. Tools that one process waits for share their polls.

    Args:
        tool: The tool, or its id.
        timeout: Seconds, by default the configuration's `startup_timeout`.
        config: Where AGS is.

    Raises:
        ToolFailedError: AGS could not make it; the message has AGS's reason.
        WaitTimeoutError: It was not ready in time.

    Example:
        ```python
        tool = create_tool(ToolSpec(name="etl", image="python:3.11"))
        wait_tool_active(tool, timeout=300)
        ```
    """
    config = resolve_config(config)
    control = config.control_plane()
    reference = tool_id(tool)
    known = control.get_tool(reference)
    try:
        limit = timeout or config.startup_timeout
        active = _wait_tool_active(control, known.id, timeout=limit, cancelled=flag_of_wait())
    except ToolFailedError:
        run_logger().error("Tool %s failed to become active", known.name)
        tell_tool("failed", known)
        raise
    run_logger().info("Tool %s is %s", active.name, active.status)
    tell_tool("active", active)
    return active


@sandbox_task("get tool", "tool")
def get_tool(tool: Tool | str, config: AGSConfig | str | None = None) -> Tool:
    """Return a tool as it is now, by id or by name.

    Raises:
        NotFoundError: There is none.

    Example:
        ```python
        print(get_tool("code-interpreter-v1").status)
        ```
    """
    return resolve_config(config).control_plane().get_tool(tool_id(tool))


@sandbox_task("list tools", "name")
def list_tools(
    name: str | None = None,
    type: str | None = None,
    status: str | None = None,
    tags: Mapping[str, str] | None = None,
    limit: int | None = None,
    config: AGSConfig | str | None = None,
) -> list[Tool]:
    """Return the tools of all pages, filtered by name, type, status and tags; conditions must all hold.

    Args:
        name: The whole name.
        type: Such as `custom` or `code-interpreter`.
        status: `CREATING`, `ACTIVE`, `DELETING` or `FAILED`.
        tags: Names and values that a tool must all have.
        limit: How many at most; all by default.
        config: Where AGS is, or the name of a saved block; by default the environment.

    Example:
        ```python
        for tool in list_tools(status="ACTIVE", tags={"team": "data"}):
            print(tool.name, tool.image)
        ```
    """
    control = resolve_config(config).control_plane()
    return control.list_tools(name=name, type=type, status=status, tags=tags, limit=limit)


@sandbox_task("update tool", "tool")
def update_tool(
    tool: Tool | str,
    description: str | None = None,
    tags: Mapping[str, str] | None = None,
    network: Network | None = None,
    custom: CustomConfiguration | None = None,
    computer: Computer | None = None,
    config: AGSConfig | str | None = None,
) -> Tool:
    """Change what AGS lets change of a tool; instances that run keep what they have.

    Args:
        tool: The tool, its id or its name.
        description: At most 200 characters.
        tags: They replace all tags but those that this package itself needs.
        network: How instances reach out.
        custom: The container, as a whole.
        computer: Of a tool of type `osworld` or `waa`.
        config: Where AGS is, or the name of a saved block; by default the environment.

    Raises:
        ConfigurationError: Nothing is given to change.
        NotFoundError: There is no such tool.
        ConflictError: It is not ACTIVE.

    Example:
        ```python
        tool = ensure_tool(ToolSpec(name="etl", image="python:3.11"))
        update_tool(tool, description="Reads orders", tags={"team": "data"})
        ```
    """
    control = resolve_config(config).control_plane()
    known = control.get_tool(tool_id(tool))
    others = any(value is not None for value in (description, network, custom, computer))
    kept = {name: known.tags[name] for name in OURS if name in known.tags}
    if others and SPEC_TAG in kept:
        # It is not any more what `ensure_tool` made of it.
        del kept[SPEC_TAG]
        tags = tags if tags is not None else {key: value for key, value in known.tags.items() if key not in OURS}
    if tags is not None:
        tags = {**tags, **kept}
    control.update_tool(known.id, description=description, tags=tags, network=network, custom=custom, computer=computer)
    return control.get_tool(known.id)


@sandbox_task("delete tool", "tool")
def delete_tool(tool: Tool | str, drain: float | None = None, config: AGSConfig | str | None = None) -> None:
    """Delete a tool. One that is gone already is a success.

    Args:
        tool: The tool, its id or its name.
        drain: Wait that many seconds for its instances to end, and then until AGS does not know the tool any more.
        config: Where AGS is, or the name of a saved block; by default the environment.

    Raises:
        ConflictError: Instances of it still run; after `drain` seconds, if it was given.

    Example:
        ```python
        delete_tool(ensure_tool(ToolSpec(name="etl", image="python:3.11")))
        ```
    """
    config = resolve_config(config)
    control = config.control_plane()
    try:
        known = control.get_tool(tool_id(tool))
    except NotFoundError:
        return
    if drain is None:
        control.delete_tool(known.id)
    else:
        delete_drained(control, known, drain=drain, timeout=config.startup_timeout)
    run_logger().info("Deleted tool %s (%s)", known.name, known.id)
    tell_tool("deleted", known)
