"""What a session opens, and how it is ended."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Literal

from prefect.exceptions import Pause

from ags_flows import tasks
from ags_flows.blocks import AGSConfig
from ags_flows.cloud.data_planes import Cancellation, OpenPlane, close_plane, open_plane
from ags_flows.cloud.retry import persistently
from ags_flows.errors import AGSFlowsError, ConflictError, NotFoundError, SupersededError, WaitCancelledError
from ags_flows.lifecycle.leased_sandbox import LeasedSandbox, lease_sandbox
from ags_flows.lifecycle.open_sandbox import successor_of
from ags_flows.models import CustomConfiguration, Instance, Step, Tool, ToolSpec
from ags_flows.models.durations import format_duration
from ags_flows.ownership import KEPT, LEASE, holder_of, relation
from ags_flows.run.awaitable import waits_end_with
from ags_flows.run.events import tell_instance
from ags_flows.run.logs import run_logger
from ags_flows.run.outcome import Ending
from ags_flows.run.steps import timed
from ags_flows.run.task_options import as_step
from ags_flows.session.session import SandboxSession
from ags_flows.session.tool import make_tool
from ags_flows.tasks.cleanup import end_session

OnFailure = Literal["stop", "keep", "pause"]

MOST_SIGNALS = 3
"""Signals during the end of a session that do not keep it from its end: it is done again, without task runs."""

MOST_TOOLS = 3
"""How often a session makes its tool, when the last session that used the same one deletes it in between."""


class Opening:
    """What a session has made so far: whatever happens in between, `close` knows what there is to end."""

    def __init__(
        self, config: AGSConfig, steps: list[Step], seconds: int, metadata: Mapping[str, str], delete_tool: bool
    ) -> None:
        self._config = config
        self._steps = steps
        self._seconds = seconds
        self._metadata = {**metadata, LEASE: str(seconds)}
        self._delete_tool = delete_tool
        self._tool: Tool | str | None = None
        self._instance: Instance | None = None
        self._leased: LeasedSandbox | None = None
        self._plane: OpenPlane | None = None
        self._interrupted = Cancellation()
        self._process = os.getpid()

    def open(
        self,
        tool: ToolSpec | Tool | str | None,
        custom: CustomConfiguration | None,
        snapshot_id: str | None,
        step: str,
    ) -> SandboxSession:
        """Start the sandbox, or take over that of an earlier attempt, and keep its lease."""
        with waits_end_with(self._interrupted):
            config = self._config
            started = time.monotonic()
            self._refuse_if_interrupted()
            instance = self._start(tool, custom, snapshot_id, step)
            self._refuse_if_interrupted()
            self._plane = open_plane(config.connection(), instance.id)
            # One that was taken over runs already: the claim was made in it.
            if instance.status != "RUNNING":
                with timed(self._steps, "wait for instance"):
                    self._instance = instance = as_step(tasks.wait_instance_running)(instance, config=config)
            self._leased = lease_sandbox(
                config.control_plane(),
                instance,
                self._seconds,
                holder_of(instance.metadata),
                age=time.monotonic() - started,
                on_trouble=run_logger().warning,
            )
            self._refuse_if_interrupted()
            return SandboxSession(self._tool or instance.tool_id, instance, config, self._steps, self._interrupted)

    def interrupt(self) -> None:
        """End the session: its waits end within a second, and it begins nothing more, wherever it is."""
        self._interrupted.end()
        self.wake()

    def _refuse_if_interrupted(self) -> None:
        if self._interrupted.is_set():
            raise WaitCancelledError("The session was not opened, because the flow run or the process ends.")

    def wake(self, reason: AGSFlowsError | None = None) -> None:
        """Make the waits of the session's threads end within a second, with an error."""
        if self._instance is not None and self._plane is not None:
            close_plane(self._config.connection(), self._instance.id, self._plane, reason)

    def successor(self) -> SupersededError | None:
        """Return the error that names the later attempt that has taken over and ended the sandbox; None without one."""
        mine = holder_of(self._instance.metadata) if self._instance is not None else None
        if self._instance is None or mine is None:
            return None
        return successor_of(self._config.control_plane(), mine, self._instance.id)

    def close(self, ending: Ending, on_failure: OnFailure, error: BaseException | None = None) -> None:
        """End what was opened, as the end of the block asks for. Errors are logged, and noted on the block's.

        A signal does not keep it from its work: what it interrupts is repeated, before it ends the process. A forked
        child that leaves the block of its parent ends nothing.
        """
        if os.getpid() != self._process:
            return
        interruption: BaseException | None = None
        for tries in range(MOST_SIGNALS + 1):
            try:
                self._end_as(ending, on_failure, as_task=tries == 0)
                break
            except Pause:
                # Prefect raises it at the begin of any task run, once the run is to be suspended.
                if error is not None:
                    continue
                self._pause_or_leave()
                raise
            except Exception as trouble:  # noqa: BLE001 - the clean-up must not replace what the block raised
                # Prefect may start no task run any more, for example while the interpreter shuts down.
                if tries > 0 or isinstance(trouble, AGSFlowsError):
                    run_logger().warning("The sandbox could not be closed: %s", trouble)
                    if error is not None:
                        error.__dict__.setdefault("__notes__", []).append(f"The sandbox could not be closed: {trouble}")
                    break
            except BaseException as signal:
                interruption = interruption or signal
        if interruption is not None:
            raise interruption

    def _end_as(self, ending: Ending, on_failure: OnFailure, as_task: bool) -> None:
        if self._leased is not None:
            self._leased.lease.release()
        if ending == "suspended":
            self._pause()
            return
        if ending in ("crashed", "superseded") or (self._leased is not None and self._leased.is_superseded):
            # A retry of this run takes the sandbox over, or has taken it; otherwise the lease ends it.
            self.wake()
            return
        if ending == "failed" and self._instance is not None:
            # Recorded before anything else: if this process is killed now, no retry repeats the failure.
            if not self._may_stop():
                return
            if on_failure != "stop":
                self._preserve(self._instance, on_failure)
                return
        # A run that is being cancelled gets no new task runs: the plain function does the same without them.
        self._end(as_task=as_task and ending != "cancelled")

    def _may_stop(self) -> bool:
        """Return False if a later attempt has the sandbox; then this one lets go of it."""
        if self._leased is None or self._leased.give_up():
            return True
        self.wake()
        return False

    def _start(
        self,
        tool: ToolSpec | Tool | str | None,
        custom: CustomConfiguration | None,
        snapshot_id: str | None,
        step: str,
    ) -> Instance:
        for attempt in range(MOST_TOOLS):
            try:
                self._tool = self._make(tool) if isinstance(tool, ToolSpec) else tool
                with timed(self._steps, "start instance"):
                    self._instance = as_step(tasks.start_instance)(
                        self._tool,
                        timeout=format_duration(self._seconds),
                        metadata=self._metadata,
                        custom=custom,
                        snapshot_id=snapshot_id,
                        step=step,
                        config=self._config,
                    )
                    return self._instance
            except (ConflictError, NotFoundError):
                # The last session that used the tool may have deleted it since.
                if not isinstance(tool, ToolSpec) or attempt + 1 == MOST_TOOLS:
                    raise
        raise AssertionError("unreachable")

    def _make(self, spec: ToolSpec) -> Tool:
        def made(tool: Tool) -> None:
            self._tool = tool

        return make_tool(spec, self._config, for_run=self._delete_tool, steps=self._steps, on_created=made)

    def _end(self, *, as_task: bool) -> None:
        tool = self._tool if self._delete_tool else None
        if self._instance is None and tool is None:
            return
        with timed(self._steps, "cleanup"):
            end = as_step(end_session) if as_task else end_session.fn
            end(self._instance, tool, may_stop=self._may_stop, config=self._config)

    def _pause_or_leave(self) -> None:
        try:
            self._pause()
        except AGSFlowsError as trouble:
            run_logger().warning("The sandbox could not be paused, and is left to its lease: %s", trouble)

    def _pause(self) -> None:
        """Pause the sandbox of a run that is suspended: memory and files stay, and the run that is resumed goes on."""
        if self._instance is None:
            return
        instance = self._instance
        paused = persistently(lambda: tasks.pause_instance.fn(instance, config=self._config))
        mine, theirs = holder_of(instance.metadata), holder_of(paused.metadata)
        if mine is not None and theirs is not None and relation(mine, theirs) == "stale":
            # The run was resumed in the meantime, and works in this sandbox already.
            persistently(lambda: tasks.resume_instance.fn(instance, config=self._config))
            return
        run_logger().info("The run is suspended; its sandbox %s is paused.", instance.id)

    def _preserve(self, instance: Instance, on_failure: OnFailure) -> None:
        logger = run_logger()
        try:
            # The reaper spares it then, although its flow run is over, and no retry takes it over.
            control = self._config.control_plane()
            persistently(lambda: control.update_instance(instance.id, metadata={KEPT: on_failure}))
            tell_instance("kept", instance, how=on_failure)
            if on_failure == "pause":
                persistently(lambda: tasks.pause_instance.fn(instance, config=self._config))
                logger.warning(
                    "The run failed. Its sandbox is paused; resume_instance(%r) wakes it up for inspection.",
                    instance.id,
                )
                return
            ends = persistently(lambda: tasks.get_instance.fn(instance, config=self._config)).expires_at
            logger.warning(
                "The run failed. Its sandbox %s is kept until %s; look inside with: ags-flows exec %s 'ls -la'",
                instance.id,
                f"{ends:%H:%M:%S %Z}" if ends else "it is stopped",
                instance.id,
            )
        except AGSFlowsError as error:
            logger.warning("The sandbox %s could not be kept: %s", instance.id, error)
