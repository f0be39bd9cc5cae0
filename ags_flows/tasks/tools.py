"""Tasks for sandbox tools."""

from __future__ import annotations

from collections.abc import Mapping

from ags_flows.blocks import AGSConfig
from ags_flows.cloud.waiting import wait_tool_active as _wait_tool_active
from ags_flows.errors import ConfigurationError, NotFoundError, ToolFailedError
from ags_flows.execution.creation import create_tool_once
from ags_flows.models import Network, Resources, Tool, ToolSpec
from ags_flows.tasks.caller import identify
from ags_flows.tasks.logs import run_logger
from ags_flows.tasks.retries import sandbox_task


def resolve_spec(spec: ToolSpec, config: AGSConfig) -> ToolSpec:
    """Return the spec with the configuration's image, resources, role and mount where it has none of its own."""
    update: dict[str, object] = {}
    if spec.type == "custom":
        if spec.image is None:
            update["image"] = config.image
        if spec.image_registry_type is None:
            update["image_registry_type"] = config.image_registry_type
        if spec.resources is None:
            update["resources"] = Resources(cpu=config.cpu, memory=config.memory)
        if not spec.mounts and config.mounts():
            update["mounts"] = config.mounts()
    if spec.role_arn is None and config.role_arn:
        update["role_arn"] = config.role_arn
    return spec.model_copy(update=update)


def tool_id(tool: Tool | str) -> str:
    """Return the id, or the name, that a caller gave for a tool."""
    reference = tool.id if isinstance(tool, Tool) else tool
    if not reference:
        raise ConfigurationError("The tool is empty.", hint="Give a Tool, or a tool's name or id.")
    return reference


@sandbox_task("create tool", "spec")
def create_tool(spec: ToolSpec, step: str = "", config: AGSConfig | None = None) -> Tool:
    """Create a sandbox tool. AGS makes it ready in the background: see `wait_tool_active`.

    A retry, of the task or of the flow run, finds the tool that an earlier attempt created and returns that.

    Args:
        spec: The tool. Image, resources, role and mount default to the configuration's.
        step: Tells identical calls in one flow run apart.
        config: Where AGS is; by default from the environment.

    Returns:
        The tool, usually in state CREATING.

    Raises:
        ConfigurationError: A field breaks a rule; nothing was sent.
        ConflictError: A tool of that name exists and is not this step's.

    Example:
        ```python
        tool = create_tool(ToolSpec(name="etl", image="python:3.11"))
        ```
    """
    config = config or AGSConfig()
    control = config.control_plane()
    resolved = resolve_spec(spec, config)
    identity = identify(f"create_tool/{step}", resolved.model_dump(mode="json"))
    tool, adopted = create_tool_once(control, resolved, identity)
    run_logger().info("%s tool %s (%s)", "Found" if adopted else "Created", tool.name, tool.id)
    return tool


@sandbox_task("ensure tool", "spec")
def ensure_tool(spec: ToolSpec, config: AGSConfig | None = None) -> Tool:
    """Return the tool of that name, created if there is none, and wait until it is ACTIVE.

    An existing tool is taken as it is, except that another image is refused: tools cannot change it in place
    without surprising those who use them.

    Raises:
        ConfigurationError: The existing tool has another image.
        ToolFailedError: The tool is FAILED.
    """
    config = config or AGSConfig()
    control = config.control_plane()
    resolved = resolve_spec(spec, config)
    known = control.list_tools(name=spec.name)
    if not known:
        identity = identify("ensure_tool", resolved.model_dump(mode="json"))
        known = [create_tool_once(control, resolved, identity)[0]]
        run_logger().info("Created tool %s (%s)", known[0].name, known[0].id)
    tool = known[0]
    if resolved.image and tool.image and tool.image != resolved.image:
        raise ConfigurationError(
            f"Tool {tool.name!r} ({tool.id}) has image {tool.image!r}, not {resolved.image!r}.",
            hint="Delete the tool, or give this one another name.",
        )
    return _wait_tool_active(control, tool.id, timeout=config.startup_timeout)


@sandbox_task("wait for tool", "tool")
def wait_tool_active(tool: Tool | str, timeout: float | None = None, config: AGSConfig | None = None) -> Tool:
    """Wait until a tool is ACTIVE. Tools that one process waits for share their polls.

    Args:
        tool: The tool, or its id.
        timeout: Seconds, by default the configuration's `startup_timeout`.
        config: Where AGS is.

    Raises:
        ToolFailedError: AGS could not make it; the message has AGS's reason.
        WaitTimeoutError: It was not ready in time.
    """
    config = config or AGSConfig()
    control = config.control_plane()
    reference = tool_id(tool)
    known = control.get_tool(reference)
    try:
        active = _wait_tool_active(control, known.id, timeout=timeout or config.startup_timeout)
    except ToolFailedError:
        run_logger().error("Tool %s failed to become active", known.name)
        raise
    run_logger().info("Tool %s is %s", active.name, active.status)
    return active


@sandbox_task("get tool", "tool")
def get_tool(tool: Tool | str, config: AGSConfig | None = None) -> Tool:
    """Return a tool as it is now, by id or by name.

    Raises:
        NotFoundError: There is none.
    """
    return (config or AGSConfig()).control_plane().get_tool(tool_id(tool))


@sandbox_task("list tools", "name")
def list_tools(
    name: str | None = None,
    status: str | None = None,
    tags: Mapping[str, str] | None = None,
    limit: int | None = None,
    config: AGSConfig | None = None,
) -> list[Tool]:
    """Return the tools, all of them unless a `limit` is given, filtered by name, status and tags."""
    control = (config or AGSConfig()).control_plane()
    return control.list_tools(name=name, status=status, tags=tags, limit=limit)


@sandbox_task("update tool", "tool")
def update_tool(
    tool: Tool | str,
    description: str | None = None,
    tags: Mapping[str, str] | None = None,
    network: Network | None = None,
    config: AGSConfig | None = None,
) -> Tool:
    """Change what AGS lets change of a tool: description, tags (replaced as a whole), network."""
    control = (config or AGSConfig()).control_plane()
    known = control.get_tool(tool_id(tool))
    control.update_tool(known.id, description=description, tags=tags, network=network)
    return control.get_tool(known.id)


@sandbox_task("delete tool", "tool")
def delete_tool(tool: Tool | str, config: AGSConfig | None = None) -> None:
    """Delete a tool. One that is gone already is a success.

    Raises:
        ConflictError: Instances of it still run.
    """
    control = (config or AGSConfig()).control_plane()
    reference = tool_id(tool)
    try:
        known = control.get_tool(reference)
    except NotFoundError:
        return
    control.delete_tool(known.id)
    run_logger().info("Deleted tool %s (%s)", known.name, known.id)
