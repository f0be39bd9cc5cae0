"""The account under test: what the checks share in it, what they learn of it, and the clean-up."""

from __future__ import annotations

import os
import re
import secrets
import socket
import statistics
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx

from ags_flows.blocks import AGSConfig
from ags_flows.cloud.certificates import verification
from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.data_planes import close_plane, open_plane
from ags_flows.cloud.proxies import proxy_for
from ags_flows.cloud.retry import Backoff, is_retryable, persistently
from ags_flows.errors import AGSFlowsError, ConflictError, InstanceFailedError, InstanceGoneError, NotFoundError
from ags_flows.lifecycle.waiting import UNKNOWN_FOR, is_active, reaches
from ags_flows.models import Instance, Tool, ToolSpec
from ags_flows.ownership import ENDED
from ags_flows.verify.check import Different, expect
from ags_flows.verify.watch import watch

PREFIX = "ags-flows-verify-"
TIMEOUT = "10m"
"""The timeout of the instances of a run: they end then, also if the run was killed."""

STALE = timedelta(minutes=30)
"""Age after which the tool of a run counts as left over, if its process cannot be looked for."""

LOOKS = 5
"""Lists that have to leave out an instance until it is taken for gone."""

PAUSES_WITHIN = 5.0
"""Seconds after which an instance that is still RUNNING will not be PAUSED."""

R = TypeVar("R")


class Account:
    """What the checks of one run share.

    Tools and instances are made by the first check that needs them. `close` ends all of them.

    Args:
        config: Where AGS is.

    Attributes:
        config: Where AGS is.
        control: The control plane.
        answers: What was learned, by name: texts, numbers and truth values, never ids.
        codes: Error codes: the expected code to the actual one.
    """

    def __init__(self, config: AGSConfig) -> None:
        self.config = config
        self.connection = config.connection()
        self.control = config.control_plane()
        self.answers: dict[str, Any] = {}
        self.codes: dict[str, str] = {}
        self.run = secrets.token_hex(4)
        self._samples: dict[str, list[float]] = {}
        self._asked: dict[str, float] = {}
        self._made: dict[str, Any] = {}
        self._tools: list[str] = []
        self._instances: list[str] = []
        self._snapshots: list[str] = []

    # What the checks use.

    @property
    def description(self) -> str:
        """The description of every tool of this run, by which a later run finds out whether this one has ended."""
        return f"ags-flows verify, process {os.getpid()} on {socket.gethostname()[:60]}"

    @property
    def tool(self) -> Tool:
        """The tool of this run, ACTIVE."""
        return self.once("tool", lambda: self.make_tool("main"))

    def instance(self, name: str = "main") -> Instance:
        """Return an instance of this run by a name, RUNNING when it was started."""
        return self.once(f"instance {name}", lambda: self.running(self.started(name)))

    def started(self, name: str) -> Instance:
        """Return an instance of this run by a name, as its start returned it, and note how long that took."""
        return self.once(f"started {name}", lambda: self._timed_start(name))

    def plane(self, name: str = "main") -> DataPlane:
        """Return the data plane of an instance."""
        return open_plane(self.connection, self.instance(name).id).plane

    def make_tool(self, name: str, **fields: Any) -> Tool:
        """Create a tool and wait until it is ACTIVE."""
        spec = ToolSpec(
            name=f"{PREFIX}{self.run}-{name}",
            type="code-interpreter",
            description=self.description,
            **fields,
        )
        began = time.monotonic()
        tool_id = self.control.create_tool(spec, client_token=f"{self.run}-{name}")
        self._tools.append(tool_id)

        def look() -> Tool | None:
            found = self.control.list_tools(ids=[tool_id])
            return found[0] if found and is_active(found[0]) else None

        tool, seen = watch(look, self.config.startup_timeout, f"the tool {tool_id} is not ACTIVE")
        self.sample("tool.create.seconds", seen - began)
        return tool

    def start(self, name: str, **options: Any) -> Instance:
        """Start an instance; it may still be STARTING."""
        options = {"tool": self.tool.id, "timeout": TIMEOUT, **options}
        self._asked.setdefault(name, time.monotonic())
        metadata = {"ags-flows-verify": self.run, "name": name}
        instance = self.control.start_instance(metadata=metadata, client_token=f"{self.run}-{name}", **options)
        self.keep(instance.id)
        return instance

    def age(self, name: str) -> float:
        """Return the seconds since the first request to start an instance."""
        return time.monotonic() - self._asked[name]

    def running(self, instance: Instance) -> Instance:
        """Wait until an instance is RUNNING, and note how long that took."""
        return self.until(instance, "RUNNING", "start.seconds", time.monotonic())

    def until(self, instance: Instance, goal: str, step: str = "", began: float = 0.0) -> Instance:
        """Wait until an instance is PAUSED, RUNNING or STOPPED.

        Args:
            instance: The instance.
            goal: The status.
            step: The duration to note: until the request was sent that saw the goal for the first time.
            began: When the step began.
        """
        reached, first, missed = reaches(goal), time.monotonic(), list[float]()

        def look() -> Instance | None:
            looked = time.monotonic()
            listed = self.control.list_instances(ids=[instance.id])
            if listed:
                missed.clear()
                if reached(listed[0]):
                    return listed[0]
                if goal == "PAUSED" and listed[0].status == "RUNNING" and looked - first > PAUSES_WITHIN:
                    raise InstanceFailedError(f"The pause failed: instance {instance.id} is RUNNING again.")
                return None
            missed.append(looked)
            if len(missed) < LOOKS or (goal != "STOPPED" and looked - first < UNKNOWN_FOR):
                return None
            if goal != "STOPPED":
                raise InstanceGoneError(f"AGS does not list the instance {instance.id}, or no longer lists it.")
            return Instance(id=instance.id, tool_id="", status="STOPPED")

        found, seen = watch(look, self.config.startup_timeout, f"the instance {instance.id} is not {goal}")
        if step:
            self.sample(step, (missed[0] if missed else seen) - began)
        return found

    def stop(self, instance: Instance) -> None:
        """Stop an instance, and note how long that took."""
        close_plane(self.connection, instance.id)
        began = time.monotonic()
        self.control.stop_instance(instance.id)
        self.until(instance, "STOPPED", "stop.seconds", began)

    def look(self, instance_id: str) -> Instance:
        """Return an instance as it is listed; one that a list leaves out is looked for several times.

        Raises:
            NotFoundError: It is in no list.
        """
        for left in range(LOOKS - 1, -1, -1):
            try:
                return self.control.get_instance(instance_id)
            except NotFoundError:
                if not left:
                    raise
                time.sleep(0.1)
        raise AssertionError

    def release(self, instance_id: str) -> None:
        """End an instance that no later check needs: an account may have room for a few only."""
        close_plane(self.connection, instance_id)
        self.control.stop_instance(instance_id)

    def keep(self, instance_id: str) -> None:
        """Note an instance to stop at the end."""
        if instance_id not in self._instances:
            self._instances.append(instance_id)

    def is_kept(self, instance_id: str) -> bool:
        """Return True for an instance that was noted."""
        return instance_id in self._instances

    def keep_tool(self, tool_id: str) -> None:
        """Note a tool to delete at the end."""
        if tool_id not in self._tools:
            self._tools.append(tool_id)

    def keep_snapshot(self, snapshot_id: str) -> None:
        """Note a snapshot to delete at the end."""
        self._snapshots.append(snapshot_id)

    def http(
        self, method: str, instance_id: str, port: int, path: str = "/", token: str | None = None, **options: Any
    ) -> httpx.Response:
        """Send a request to a port of a sandbox, with no more than this token."""
        url = f"{self.connection.instance_url(instance_id, port).rstrip('/')}{path}"
        headers = {**options.pop("headers", {}), **({"X-Access-Token": token} if token else {})}
        with httpx.Client(
            verify=verification(self.connection.verify_tls), proxy=proxy_for(url), trust_env=False, timeout=30
        ) as client:
            return client.request(method, url, headers=headers, **options)

    def token(self, name: str = "main") -> str:
        """Return an access token of an instance."""
        return self.control.acquire_token(self.instance(name).id).token.get_secret_value()

    def refusal(self, expected: str, action: str, parameters: dict[str, Any]) -> str:
        """Send a request that must be refused, and return the code of the error.

        Raises:
            Different: It was accepted, or refused with another code.
        """
        try:
            self.control.call(action, parameters)
        except AGSFlowsError as error:
            code = error.code or type(error).__name__
            self.codes[expected] = code
            expect(code == expected, f"{code} instead of {expected}")
            return code
        raise Different(f"{action} was accepted")

    def once(self, name: str, make: Callable[[], R]) -> R:
        """Return the result of the first call. A failed first call is not repeated."""
        if name not in self._made:
            try:
                self._made[name] = make()
            except Exception as error:
                self._made[name] = error
        made = self._made[name]
        if isinstance(made, Exception):
            raise made
        return made  # type: ignore[no-any-return]

    def sample(self, name: str, seconds: float) -> None:
        """Note one duration; the result is the median of all."""
        self._samples.setdefault(name, []).append(seconds)
        self.answers[name] = round(statistics.median(self._samples[name]), 3)

    def _timed_start(self, name: str) -> Instance:
        assert self.tool  # its creation is not part of the start
        began = time.monotonic()
        instance = self.start(name)
        self.sample("start.call.seconds", time.monotonic() - began)
        return instance

    # The end.

    def close(self) -> list[str]:
        """End and delete all that this run has made.

        Returns:
            What could not be deleted, as text for the user.
        """
        left = []
        for instance_id in self._instances:
            close_plane(self.connection, instance_id)
            left += _tried(f"instance {instance_id}", partial(self.control.stop_instance, instance_id))
        for snapshot_id in self._snapshots:
            left += _tried(f"snapshot {snapshot_id}", partial(self.control.delete_snapshot, snapshot_id))
        for tool_id in self._tools:
            left += _tried(f"tool {tool_id}", partial(self._delete_tool, tool_id))
        return left

    def sweep(self) -> int:
        """Delete what a run before this one left behind; what cannot be deleted now is tried again at the end.

        Returns:
            How many tools were deleted.

        Raises:
            CredentialsError: The account refuses the keys.
        """
        count = 0
        for tool in self.control.list_tools():
            if tool.name.startswith(PREFIX) and _is_left_over(tool):
                try:
                    for snapshot in self.control.list_snapshots():
                        if snapshot.name.startswith(tool.name.rpartition("-")[0]):
                            self.control.delete_snapshot(snapshot.id)
                    self._delete_tool(tool.id)
                    count += 1
                except AGSFlowsError:
                    self.keep_tool(tool.id)
        return count

    def _delete_tool(self, tool_id: str) -> None:
        """Stop the instances of a tool, and delete it when the last of them has ended."""

        def attempt() -> None:
            for instance in self.control.list_instances(tool=tool_id):
                if instance.status not in ENDED:
                    self.control.stop_instance(instance.id)
            self.control.delete_tool(tool_id)

        # A list may leave out an instance, which then still uses the tool.
        patience = Backoff(attempts=None, patience=self.config.startup_timeout, first_pause=0.1, longest_pause=2.0)
        persistently(attempt, patience, repeat=lambda error: isinstance(error, ConflictError) or is_retryable(error))


def _is_left_over(tool: Tool) -> bool:
    found = re.fullmatch(r"ags-flows verify, process (\d+) on (.*)", tool.description or "")
    if found and found[2] == socket.gethostname()[:60]:
        return not Path(f"/proc/{found[1]}").exists()
    return tool.created_at is not None and datetime.now(timezone.utc) - tool.created_at > STALE


def _tried(what: str, action: Callable[[], object]) -> list[str]:
    try:
        action()
    except AGSFlowsError as error:
        return [f"{what}: {error}"]
    return []
