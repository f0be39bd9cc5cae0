"""Tasks for sandbox instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ags_flows.blocks import AGSConfig, resolve_config
from ags_flows.cloud.gone import telling_of_its_end
from ags_flows.lifecycle.changes import pause, resume
from ags_flows.lifecycle.open_sandbox import Launch, take_over_or_start
from ags_flows.lifecycle.waiting import wait_instance_running as _wait_instance_running
from ags_flows.models import AccessToken, CustomConfiguration, Instance, MountOption, Tool
from ags_flows.models.durations import check_duration, parse_duration
from ags_flows.ownership import LEASE
from ags_flows.run.awaitable import flag_of_wait
from ags_flows.run.events import tell_instance
from ags_flows.run.holder import identify, owner
from ags_flows.run.logs import run_logger
from ags_flows.run.task_options import sandbox_task
from ags_flows.tasks.tools import tool_id


def instance_id(instance: Instance | str) -> str:
    """Return the id that a caller gave for an instance."""
    return instance.id if isinstance(instance, Instance) else instance


@sandbox_task("start", "tool", timeout=check_duration)
def start_instance(
    tool: Tool | str | None = None,
    timeout: str | None = None,
    metadata: Mapping[str, str] | None = None,
    custom: CustomConfiguration | None = None,
    mount_options: Sequence[MountOption] = (),
    auth_mode: str | None = None,
    snapshot_id: str | None = None,
    source_instance_id: str | None = None,
    step: str = "",
    config: AGSConfig | str | None = None,
) -> Instance:
    """Start an instance of a tool. It may still be STARTING: see `wait_instance_running`.

    A retry of whatever encloses the call takes over the live instance that an earlier attempt started, and returns it
    RUNNING. The metadata of the instance names the step and the holder, so that it can be found and reaped.

    Args:
        tool: A tool, its id or its name; by default the configuration's `tool_id`. None for a snapshot or a clone.
        timeout: `30s` to `24h`, by default the configuration's. The instance ends then, unless it is extended.
        metadata: Your own names and values, beside those that this package writes. The name `lease` means that the
            caller renews the timeout as a lease: the reaper then spares the instance while that goes on.
        custom: What this instance has different from its tool.
        mount_options: Changes to the tool's mounts.
        auth_mode: `TOKEN` (default), `PUBLIC` (only envd needs the token), `NONE`.
        snapshot_id: Start from this snapshot, with the disk (and the memory, if it has any) of its instance.
        source_instance_id: Start as a clone of this live instance.
        step: Distinguishes identical calls in one flow run whose order may change between attempts.
        config: Where AGS is, or the name of a saved block; by default the environment.

    Returns:
        The instance.

    Raises:
        NotFoundError: There is no such tool.
        ConflictError: The tool is not ACTIVE.
        QuotaExceededError: Too many instances live, with what is in use; retried.
        UnsupportedError: AGS started it without an override; it is stopped again.

    Example:
        ```python
        faster = CustomConfiguration(env={"MODE": "fast"}, resources=Resources(cpu="4", memory="8Gi"))
        tool = ensure_tool(ToolSpec(name="etl", image="python:3.11"))
        started = start_instance(tool, timeout="30m", custom=faster, metadata={"day": "2026-11-22"})
        stop_instance(started)
        ```
    """
    config = resolve_config(config)
    control = config.control_plane()
    from_another = snapshot_id or source_instance_id
    reference = None if from_another and tool is None else tool_id(tool or config.tool_id)
    duration = timeout or config.timeout
    parse_duration(duration)
    own = dict(metadata or {})
    arguments = {
        "tool": reference,
        "custom": custom,
        "mount_options": tuple(mount_options),
        "auth_mode": auth_mode,
        "snapshot_id": snapshot_id,
        "source_instance_id": source_instance_id,
    }
    does = {
        **arguments,
        "custom": custom.model_dump(mode="json") if custom else None,
        "mount_options": [option.model_dump(mode="json") for option in mount_options],
    }
    launch = Launch(
        step=identify("start_instance", does, step=step, ordered=True),
        owner=owner(),
        arguments=arguments,
        timeout=duration,
        lease=parse_duration(duration) if LEASE in own else None,
        metadata=own,
        startup_timeout=config.startup_timeout,
        cancelled=flag_of_wait(),
    )
    instance, taken_over = take_over_or_start(control, config.connection(), launch, on_trouble=run_logger().warning)
    if taken_over:
        run_logger().info("Took over instance %s of an earlier attempt", instance.id)
        tell_instance("adopted", instance, state=instance.status)
    else:
        run_logger().info("Started instance %s of %s (%s)", instance.id, instance.tool_name, instance.status)
        tell_instance("started", instance, state=instance.status, timeout=duration)
    return instance


@sandbox_task("wait for instance", "instance")
def wait_instance_running(
    instance: Instance | str, timeout: float | None = None, config: AGSConfig | str | None = None
) -> Instance:
    """Wait until an instance is RUNNING. Instances that one process waits for share their polls.

    Args:
        instance: The instance or its id.
        timeout: Seconds, by default the configuration's `startup_timeout`.
        config: Where AGS is.

    Raises:
        InstanceFailedError: It failed to start.
        InstanceGoneError: It ended before it ran.
        WaitTimeoutError: It was not running in time.

    Example:
        ```python
        running = wait_instance_running(start_instance("base"))
        assert running.status == "RUNNING"
        stop_instance(running)
        ```
    """
    config = resolve_config(config)
    running = _wait_instance_running(
        config.control_plane(),
        instance_id(instance),
        timeout=timeout or config.startup_timeout,
        cancelled=flag_of_wait(),
    )
    run_logger().info("Instance %s is %s", running.id, running.status)
    tell_instance("running", running)
    return running


@sandbox_task("get instance", "instance")
def get_instance(instance: Instance | str, config: AGSConfig | str | None = None) -> Instance:
    """Return an instance as it is now.

    Raises:
        NotFoundError: AGS knows no such instance (ended ones stay known for a while).

    Example:
        ```python
        print(get_instance(instance).expires_at)
        ```
    """
    return resolve_config(config).control_plane().get_instance(instance_id(instance))


@sandbox_task("list instances", "tool")
def list_instances(
    tool: Tool | str | None = None,
    status: str | None = None,
    metadata: Mapping[str, str] | None = None,
    limit: int | None = None,
    config: AGSConfig | str | None = None,
) -> list[Instance]:
    """Return the instances of all pages, filtered by tool, status and metadata; conditions must all hold.

    Args:
        tool: A tool, its id or its name; also of one that is deleted.
        status: Such as `RUNNING` or `PAUSED`.
        metadata: Names and values that an instance must all have. AGS has no such filter: all are read.
        limit: How many at most; all by default.
        config: Where AGS is, or the name of a saved block; by default the environment.

    Example:
        ```python
        for one in list_instances(status="RUNNING"):
            print(one.id, one.tool_name, one.metadata)
        ```
    """
    control = resolve_config(config).control_plane()
    reference = (tool.id if isinstance(tool, Tool) else tool_id(tool)) if tool else None
    return control.list_instances(tool=reference, status=status, metadata=metadata, limit=limit)


@sandbox_task("extend", "instance", timeout=check_duration)
def extend_instance(
    instance: Instance | str, timeout: str | None = None, config: AGSConfig | str | None = None
) -> Instance:
    """Restart the countdown of an instance's timeout, `30s` to `24h` from now; it can also be shortened.

    Raises:
        InstanceGoneError: Its time was over before: it has ended.
        ConflictError: The instance is not RUNNING.

    Example:
        ```python
        extended = extend_instance(instance, "30m")
        assert extended.timeout == 1800
        ```
    """
    config = resolve_config(config)
    control = config.control_plane()
    duration = timeout or config.timeout
    parse_duration(duration)
    reference = instance_id(instance)
    with telling_of_its_end(control, reference):
        control.update_instance(reference, timeout=duration)
    return control.get_instance(reference)


@sandbox_task("pause", "instance")
def pause_instance(instance: Instance | str, memory: bool = True, config: AGSConfig | str | None = None) -> Instance:
    """Pause an instance and wait until it is PAUSED. One that is paused already is a success.

    Args:
        instance: The instance or its id.
        memory: Whether processes and memory are kept; otherwise only the disk is.
        config: Where AGS is, or the name of a saved block; by default the environment.

    Raises:
        InstanceGoneError: It has ended.
        ConflictError: It is in a state that cannot be paused.

    Example:
        ```python
        pause_instance(instance)
        resume_instance(instance, timeout="10m")
        ```
    """
    config = resolve_config(config)
    control = config.control_plane()
    reference = instance_id(instance)
    paused = pause(control, reference, memory=memory, timeout=config.startup_timeout)
    tell_instance("paused", paused, memory=memory)
    return paused


@sandbox_task("resume", "instance", timeout=check_duration)
def resume_instance(
    instance: Instance | str, timeout: str | None = None, config: AGSConfig | str | None = None
) -> Instance:
    """Resume a paused instance and wait until it is RUNNING. One that runs already is a success.

    Args:
        instance: The instance or its id.
        timeout: The new timeout, `30s` to `24h` from now, by default the configuration's.
        config: Where AGS is, or the name of a saved block; by default the environment.

    Raises:
        InstanceGoneError: It has ended.
        QuotaExceededError: Too many instances run; retried.

    Example:
        ```python
        pause_instance(instance, memory=False)
        assert resume_instance(instance).status == "RUNNING"
        ```
    """
    config = resolve_config(config)
    control = config.control_plane()
    reference, duration = instance_id(instance), timeout or config.timeout
    parse_duration(duration)
    running = resume(control, reference, lease=duration, timeout=config.startup_timeout)
    tell_instance("resumed", running)
    return running


@sandbox_task("stop", "instance")
def stop_instance(instance: Instance | str, config: AGSConfig | str | None = None) -> None:
    """Stop an instance permanently. One that has ended already is a success.

    Example:
        ```python
        stop_instance(start_instance("base"))
        ```
    """
    resolve_config(config).control_plane().stop_instance(instance_id(instance))
    run_logger().info("Stopped instance %s", instance_id(instance))
    tell_instance("stopped", instance)


@sandbox_task("acquire token", "instance")
def acquire_token(instance: Instance | str, config: AGSConfig | str | None = None) -> AccessToken:
    """Return an access token for one instance's data plane. The token is masked in text and never stored.

    Example:
        ```python
        token = acquire_token(instance)
        headers = {"X-Access-Token": token.token.get_secret_value()}
        ```
    """
    return resolve_config(config).control_plane().acquire_token(instance_id(instance))


@sandbox_task("url", "instance")
def get_instance_url(instance: Instance | str, port: int | None = None, config: AGSConfig | str | None = None) -> str:
    """Return the URL of a port of an instance, by default the configuration's `port`. It holds no token.

    Requests need the access token in the header `X-Access-Token`, unless the instance's AuthMode is open.

    Example:
        ```python
        print(get_instance_url(instance, 8000))
        ```
    """
    config = resolve_config(config)
    return config.connection().instance_url(instance_id(instance), port or config.port)
