"""A model of the cloud, of sandboxes and of executions, to check the rules of ownership on many interleavings.

`World` holds the cloud and the executions. Executions are fibers: generators that yield one atomic request at a time.
The caller picks the fiber that goes on, and what happens to its request: it succeeds, its response is lost, the request
is lost, or it is carried out later. Flow runs are killed, retried, retried while the earlier attempt still runs, frozen
and suspended. Tasks fail, and are retried while the earlier attempt still runs. After each request the world compares
what an execution believes with what is true, which no execution can see. It raises `BrokenRuleError` if they differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ags_flows.ownership import flow_runs_of

from .errors import ENDS, FailedError, LostError, NoToolError, SupersededError, SuspendedError
from .executions import Executions
from .rules import Rules
from .state import LEASE, Fiber, FlowRun, Request, Seen


class World(Executions):
    """The cloud and all executions.

    Args:
        programs: One flow run is begun for each.
        rules: The rules that executions follow.
    """

    def __init__(self, programs: Sequence[tuple[Any, ...]], rules: Rules | None = None) -> None:
        super().__init__(rules or Rules(), len(programs) + 1)
        self.late: list[Callable[[], Any]] = []
        self.runs = [FlowRun(f"{number:032x}", body) for number, body in enumerate(programs, start=1)]
        for run in self.runs:
            self.begin(run)

    def ready(self) -> list[Fiber]:
        """The fibers that can go on."""
        found = []
        self.fibers = [fiber for fiber in self.fibers if fiber.alive]
        for fiber in self.fibers:
            if (fiber.run.id, -fiber.frames[0].attempt) in self.frozen:
                continue
            if fiber.renewer is not None and self.now < fiber.renewer.renew_at:
                continue
            if fiber.waiting and any(one.alive for one in fiber.waiting):
                continue
            found.append(fiber)
        return found

    def step(self, fiber: Fiber, fault: str = "") -> None:
        """Carry out the pending request of a fiber, and go on to the next one.

        Args:
            fiber: One of those that are ready.
            fault: `response`: it is carried out, the response is lost. `broken`: the same, and the instance dies.
                `request`: it is not carried out. `late`: it is carried out at some time, without a response.
        """
        result, error = None, None
        if isinstance(fiber.asked, Request):
            request = fiber.asked
            try:
                if fault == "late" and request.may_be_late:
                    self.late.append(request.commit)
                elif fault != "request":
                    result = request.commit()
                if fault == "broken" and isinstance(result, Seen) and self.instances[result.id].live:
                    self.instances[result.id].status, self.instances[result.id].broken = "FAILED", True
                if fault:
                    error = LostError()
            except ENDS as raised:
                error = LostError() if fault else raised
        self.go_on(fiber, result, error)

    def go_on(self, fiber: Fiber, result: Any, error: Exception | None) -> None:
        fiber.waiting = []
        fiber.asked = None
        try:
            asked = fiber.steps.throw(error) if error else fiber.steps.send(result)
        except StopIteration:
            fiber.done = True
        except ENDS as raised:
            fiber.done, fiber.error = True, raised
        else:
            fiber.asked = asked
            if isinstance(asked, list):
                fiber.waiting = asked
        main = fiber.run.main
        if fiber is main and fiber.done:
            ended = {type(None): "completed", SuspendedError: "suspended"}
            fiber.run.state = ended.get(type(fiber.error), "failed")
            self.check(not isinstance(fiber.error, SupersededError | NoToolError), f"a current run: {fiber.error!r}")

    def commit_late(self, which: int) -> None:
        """Carry out a request that was sent earlier."""
        commit = self.late.pop(which % len(self.late))
        try:
            commit()
        except ENDS:
            pass

    def current(self, run: FlowRun) -> list[Fiber]:
        return [one for one in self.fibers if one.alive and one.run is run and one.frames[0].attempt == run.attempt]

    def kill(self, fibers: list[Fiber]) -> None:
        for fiber in fibers:
            fiber.dead = True
            fiber.steps.close()

    def kill_run(self, run: FlowRun) -> None:
        """Kill the process of the current attempt."""
        if run.state == "running":
            self.kill(self.current(run))
            run.state = "crashed"

    def retry_run(self, run: FlowRun) -> None:
        """Begin the next attempt. An attempt that still runs goes on, without its current state."""
        if run.suspending:
            self.kill_run(run)
        if run.state != "completed":
            self.begin(run)

    def freeze(self, run: FlowRun) -> None:
        """Stop the process of the current attempt for some time, and begin the next attempt."""
        if run.state == "running" and not run.suspending:
            self.frozen |= {(run.id, -run.attempt), (run.id, run.attempt)}
            self.begin(run)

    def break_instance(self, which: int) -> None:
        """Let the cloud lose an instance."""
        live = [one for one in self.instances.values() if one.live]
        if live:
            instance = live[which % len(live)]
            instance.status, instance.broken = "FAILED", True

    def kill_earlier(self, run: FlowRun) -> None:
        """Kill what still runs of superseded attempts."""
        self.kill([one for one in self.fibers if one.alive and one.run is run and not self.is_current(one.frames)])

    def thaw(self) -> None:
        self.frozen = {(run, attempt) for run, attempt in self.frozen if attempt > 0}

    def fail(self, fiber: Fiber) -> None:
        """Let the user's code fail at its current position."""
        if fiber.renewer is None and not fiber.opening and isinstance(fiber.asked, Request) and not self.closing(fiber):
            self.go_on(fiber, None, FailedError())

    def closing(self, fiber: Fiber) -> bool:
        frame = fiber.steps
        while frame is not None:
            if frame.gi_code.co_name == "close":
                return True
            frame = frame.gi_yieldfrom
        return False

    def suspend(self, run: FlowRun) -> None:
        """Suspend a run: each of its fibers ends its sessions, innermost first."""
        current = self.current(run)
        earlier = [one for one in self.fibers if one.alive and one.run is run and one not in current]
        zombies = [one for one in current if not self.is_current(one.frames)]
        if run.state != "running" or earlier or zombies:
            return
        run.suspending = True
        for fiber in reversed(current):
            if fiber.alive and fiber.renewer is None and not fiber.opening and not self.closing(fiber):
                if isinstance(fiber.asked, Request):
                    self.go_on(fiber, None, SuspendedError())

    def repeat_scope(self, fiber: Fiber) -> None:
        """Begin the next attempt of a task or subflow although the earlier attempt still runs, as after a timeout."""
        scope, parent = fiber.scope, fiber.parent
        if scope is None or parent is None or scope.kind == "item" or fiber not in parent.waiting or not parent.alive:
            return
        if fiber.run.suspending:
            return
        if fiber.frames[-1].attempt > scope.retries:
            return
        parent.waiting = []
        fiber.parent = None
        self.go_on(parent, None, None)

    def advance(self, seconds: int) -> None:
        """Let time pass. Processes that are not frozen renew leases in time."""
        end = self.now + seconds
        while self.now < end:
            busy = any(fiber.alive and fiber.opening and fiber in self.ready() for fiber in self.fibers)
            if busy:
                return
            self.now = min(end, self.now + LEASE // 8)
            for fiber in self.ready():
                for _ in range(8):
                    if fiber.renewer is not None and fiber in self.ready():
                        self.step(fiber)
            for instance in self.instances.values():
                if instance.live and instance.status != "PAUSED" and instance.expires <= self.now:
                    instance.status = "STOPPED"
            for name in [name for name, status in self.tools.items() if status == "DELETING"]:
                del self.tools[name]
            self.check_reaper()

    def check_reaper(self) -> None:
        """Every instance of a running execution belongs to a flow run that is active."""
        for instance in self.instances.values():
            if instance.live and self.at_work(instance):
                active = {run.id for run in self.runs if run.state == "running"}
                active |= {frame.id for one in self.fibers if one.alive for frame in one.frames if frame.kind == "flow"}
                named = {one.replace("-", "") for one in flow_runs_of(instance.metadata)}
                self.check(bool(named & active), "an instance of a running execution is an orphan")

    def finish(self) -> None:
        """Execute every run to its end, with retries, and check that no instance remains."""
        self.thaw()
        for run in self.runs:
            for _ in range(4):
                self.settle()
                if run.state == "completed":
                    break
                self.retry_run(run)
            self.settle()
            self.check(run.state == "completed", f"a run without a fault is {run.state}")
        while self.late:
            self.commit_late(0)
        for _ in range(3):
            self.settle()
            self.advance(LEASE)
        left = [one for one in self.instances.values() if one.live]
        self.check(not left, "an instance outlived its lease")

    def discard(self) -> None:
        """Discard all executions without running their clean-up."""
        self.kill([one for one in self.fibers if one.alive])

    def settle(self) -> None:
        """Let all fibers go on until nothing is ready."""
        for _ in range(3000):
            ready = self.ready()
            if not ready:
                return
            self.step(ready[-1])
            if any(status == "DELETING" for status in self.tools.values()):
                self.tools = {name: status for name, status in self.tools.items() if status != "DELETING"}
        self.check(False, "an execution does not end")
