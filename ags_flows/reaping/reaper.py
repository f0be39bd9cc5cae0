"""The reaper: list resources, judge them, check them again, and stop them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timezone
from functools import partial
from itertools import islice
from typing import TypeVar

from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.errors import AGSFlowsError, UnreachableError
from ags_flows.lifecycle.ensure_tool import delete_drained
from ags_flows.models import Instance, Reaped, ReapReport, ReapRules, Tool
from ags_flows.ownership import FLOW, FLOW_RUN, FLOW_RUN_NAME, LIVE, MANAGED_BY, MANAGED_BY_KEY, flow_runs_of, is_ours
from ags_flows.reaping.judgement import IN_QUESTION, Verdict, judge_instance, judge_snapshot, judge_tool
from ags_flows.reaping.owners import Owned, Owners, together

CHUNK = 100
"""Instances that are checked again and then stopped together: as many ids as one request can carry."""

THREADS = 8
DRAIN = 20.0
"""Seconds to wait for the last instances of a tool to end, and for the tool to be deleted."""

SHOWN = 200
"""Kept resources that the report lists; further ones are only counted."""

T = TypeVar("T")


class Reaper:
    """Stops resources that this package created and that are provably orphaned.

    Args:
        control: The control plane. Use a rate-limited one if there may be many resources.
        owners: Looks up the states of flow runs.
        rules: What to stop.
        dry_run: Judge only; stop nothing.
        flow_run_id: Only resources of this flow run, also where it is nested in another one. Snapshots are skipped.
        now: Returns the current time, timezone-aware.
        on_reaped: Called for each resource that was stopped or deleted, in the thread that calls `run`.
    """

    def __init__(
        self,
        control: ControlPlane,
        owners: Owners,
        rules: ReapRules,
        *,
        dry_run: bool = False,
        flow_run_id: str | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
        on_reaped: Callable[[Reaped], None] = lambda reaped: None,
    ) -> None:
        self._control = control
        self._owners = owners
        self._rules = rules
        self._dry_run = dry_run
        self._only = flow_run_id
        self._now = now
        self._on_reaped = on_reaped
        self._doomed: list[Instance] = []
        self._stopped: list[Reaped] = []
        self._spared: list[Reaped] = []
        self._spared_count: dict[str, int] = {}
        self._last_used: dict[str, datetime] = {}
        self._used_by: dict[str, set[str]] = {}
        self._seen = self._left = 0
        self._incomplete = ""

    def run(self) -> ReapReport:
        """Judge all resources and stop those that fall under a rule.

        Returns:
            The report. If an error ended the run after something may have been stopped, `incomplete` describes it.

        Raises:
            UnreachableError: AGS or the Prefect server did not respond while resources were being judged. Nothing
                was stopped.
        """
        started = time.monotonic()
        self._judge_all()
        # AGS lists the newest first and reports times in whole seconds.
        oldest_first = sorted(reversed(self._doomed), key=lambda one: one.created_at or self._now())
        try:
            self._left = len(oldest_first)
            while self._left and self._room:
                # Resources that cannot be stopped do not count for `at_most`: younger ones take their turn.
                first = len(oldest_first) - self._left
                allowed = oldest_first[first : first + self._room]
                self._left -= len(allowed)
                self._end(allowed)
            self._end_tools()
            if self._only is None:
                self._end_snapshots()
        except AGSFlowsError as error:
            self._incomplete = str(error)
        return ReapReport(
            dry_run=self._dry_run,
            stopped=tuple(self._stopped),
            spared=tuple(self._spared),
            spared_count=dict(sorted(self._spared_count.items(), key=lambda item: -item[1])),
            seen=self._seen,
            left=self._left,
            incomplete=self._incomplete,
            seconds=time.monotonic() - started,
        )

    @property
    def _room(self) -> int:
        return self._rules.at_most - sum(one.done or self._dry_run for one in self._stopped)

    def _judge_all(self) -> None:
        known: dict[str, Owned] = {}
        for chunk in _chunks(self._in_question()):
            # Listing may take long, so these states may be outdated when it ends: `_end` checks again.
            wanted = _runs(one.metadata for one in chunk)
            known.update(self._owners.look_up({run: flow for run, flow in wanted.items() if run not in known}))
            for instance in chunk:
                verdict = self._judge(instance, known)
                if verdict.rule is None:
                    self._spare(_described(instance, verdict, self._now()))
                else:
                    self._doomed.append(instance)

    def _in_question(self) -> Iterator[Instance]:
        for instance in self._control.each_instance():
            self._seen += instance.status in LIVE
            if instance.status in LIVE:
                self._used_by.setdefault(instance.tool_id, set()).add(instance.id)
            last = self._last_used.get(instance.tool_id)
            if instance.created_at is not None and (last is None or last < instance.created_at):
                self._last_used[instance.tool_id] = instance.created_at
            runs = flow_runs_of(instance.metadata)
            if instance.status in IN_QUESTION and is_ours(instance.metadata) and self._only in (None, *runs):
                yield instance

    def _judge(self, instance: Instance, known: Mapping[str, Owned]) -> Verdict:
        return judge_instance(instance, _owned(instance.metadata, known), self._rules, self._now())

    def _end(self, doomed: list[Instance]) -> None:
        if self._dry_run:
            known = self._owners.look_up(_runs(one.metadata for one in doomed))
            for instance in doomed:
                verdict = self._judge(instance, known)
                self._stopped.append(_described(instance, verdict, self._now()))
            return
        with ThreadPoolExecutor(THREADS, thread_name_prefix="ags-reap") as pool:
            underway: list[tuple[Reaped, Future[None]]] = []
            try:
                for chunk in _chunks(doomed):
                    # Checked while the previous chunk is being stopped, so that stopping is not delayed.
                    again = self._look_again(chunk)
                    self._finish(underway)
                    for instance, verdict in again:
                        future = pool.submit(self._control.stop_instance, instance.id)
                        underway.append((_described(instance, verdict, self._now()), future))
            finally:
                self._finish(underway)

    def _look_again(self, doomed: list[Instance]) -> list[tuple[Instance, Verdict]]:
        """Return the instances that must still be stopped: a run may have been retried since the first check."""
        fresh = {one.id: one for one in self._control.list_instances(ids=[one.id for one in doomed])}
        known_still = [fresh[one.id] for one in doomed if one.id in fresh]
        live = [one for one in known_still if one.status in IN_QUESTION and is_ours(one.metadata)]
        known = self._owners.look_up(_runs(one.metadata for one in live))
        judged = [(one, self._judge(one, known)) for one in live]
        for instance, verdict in judged:
            if verdict.rule is None:
                self._spare(_described(instance, verdict, self._now()))
        return [(instance, verdict) for instance, verdict in judged if verdict.rule is not None]

    def _finish(self, underway: list[tuple[Reaped, Future[None]]]) -> None:
        """Wait for pending stop requests. Raise UnreachableError if AGS did not respond to one of them."""
        lost: BaseException | None = None
        for reaped, future in underway:
            error = future.exception()
            if error is not None and not isinstance(error, AGSFlowsError):
                raise error
            self._note(reaped, error)
            lost = error if isinstance(error, UnreachableError) else lost
        underway.clear()
        if lost is not None:
            raise lost

    def _end_tools(self) -> None:
        if self._rules.tools_unused_days is None and not self._rules.orphans:
            return
        ended = {one.id for one in self._stopped if one.kind == "instance" and (one.done or self._dry_run)}
        unused = [tool for tool in self._control.list_tools() if not self._used_by.get(tool.id, set()) - ended]
        known = self._owners.look_up(_runs(_made_for(tool) for tool in unused))
        for tool in unused:
            made_for = _made_for(tool)
            if self._only not in (None, *flow_runs_of(made_for)):
                continue
            verdict = self._judge_tool(tool, known)
            if verdict.rule == "orphan":
                # Deleting earlier tools may have taken minutes, and the run may have been retried since.
                verdict = self._judge_tool(tool, self._owners.look_up(_runs([made_for])))
            if verdict.rule is not None:
                described = Reaped(
                    kind="tool",
                    id=tool.id,
                    tool=tool.name,
                    flow_run_id=made_for.get(FLOW_RUN, ""),
                    state=tool.status,
                    rule=verdict.rule,
                    reason=verdict.reason,
                )
                # Its instances may just have been stopped, which takes AGS a short time.
                end = partial(delete_drained, self._control, tool, drain=DRAIN, timeout=DRAIN)
                self._delete(described, end)

    def _judge_tool(self, tool: Tool, known: Mapping[str, Owned]) -> Verdict:
        made_for = _made_for(tool)
        owned = _owned(made_for, known) if made_for else None
        return judge_tool(tool, self._last_used.get(tool.id), owned, self._rules, self._now())

    def _end_snapshots(self) -> None:
        if self._rules.snapshots_days is None:
            return
        for snapshot in self._control.list_snapshots():
            verdict = judge_snapshot(snapshot, self._rules, self._now())
            if verdict.rule is not None and snapshot.status == "ACTIVE":
                described = Reaped(
                    kind="snapshot", id=snapshot.id, state=snapshot.status, rule=verdict.rule, reason=verdict.reason
                )
                self._delete(described, lambda: self._control.delete_snapshot(snapshot.id))  # noqa: B023

    def _delete(self, reaped: Reaped, delete: Callable[[], None]) -> None:
        if not self._room:
            self._left += 1
            return
        if self._dry_run:
            self._stopped.append(reaped)
            return
        try:
            delete()
        except UnreachableError:
            raise
        except AGSFlowsError as error:
            self._note(reaped, error)
            return
        self._note(reaped, None)

    def _note(self, reaped: Reaped, error: AGSFlowsError | None) -> None:
        reaped = reaped.model_copy(update={"done": error is None, "problem": str(error or "")})
        self._stopped.append(reaped)
        if reaped.done:
            self._on_reaped(reaped)

    def _spare(self, spared: Reaped) -> None:
        self._spared_count[spared.reason] = self._spared_count.get(spared.reason, 0) + 1
        if len(self._spared) < SHOWN:
            self._spared.append(spared)


def _described(instance: Instance, verdict: Verdict, now: datetime) -> Reaped:
    created = instance.created_at
    return Reaped(
        kind="instance",
        id=instance.id,
        tool=instance.tool_name,
        flow_run_id=instance.metadata.get(FLOW_RUN, ""),
        flow_run=instance.metadata.get(FLOW_RUN_NAME, ""),
        state=instance.status,
        age_hours=round((now - created).total_seconds() / 3600, 2) if created else None,
        rule=verdict.rule,
        reason=verdict.reason,
    )


def _made_for(tool: Tool) -> Mapping[str, str]:
    """Return the tags of a tool that was created for one flow run; empty for any other tool."""
    return tool.tags if tool.tags.get(MANAGED_BY_KEY) == MANAGED_BY and tool.tags.get(FLOW_RUN) else {}


def _owned(labels: Mapping[str, str], known: Mapping[str, Owned]) -> Owned:
    return together([known[run] for run in flow_runs_of(labels)])


def _runs(labelled: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the ids of all owning flow runs, each with the id of its outermost flow."""
    return {run: labels.get(FLOW, "") for labels in labelled for run in flow_runs_of(labels)}


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk
