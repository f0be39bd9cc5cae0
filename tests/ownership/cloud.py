"""The cloud and the sandboxes of the model: each method is one atomic request."""

from __future__ import annotations

from datetime import timedelta

from ags_flows.ownership import Claim, Holder, Owner, Step, label

from .errors import GoneError, NoToolError, PausedError
from .invariants import Invariants
from .rules import Rules
from .state import EPOCH, LEASE, Fiber, Instance, Journal, Open, Seen


class Cloud(Invariants):
    """Tools, instances, and the claims and journals in them."""

    def __init__(self, rules: Rules, first_number: int) -> None:
        super().__init__(rules, first_number)
        self.tools: dict[str, str] = {}
        self.tokens: dict[str, int] = {}

    def seen(self, instance: Instance) -> Seen:
        return Seen(instance.id, instance.status, dict(instance.metadata), instance.executions)

    def _get(self, number: int, running: bool = False) -> Instance:
        instance = self.instances[number]
        if not instance.live:
            raise GoneError(number)
        if running and instance.status != "RUNNING":
            raise PausedError
        return instance

    def start(self, fiber: Fiber, step: Step, generation: int, tool: str, existing: frozenset[int]) -> Seen:
        token = self.rules.token(step, generation)
        if token in self.tokens:
            return self.seen(self.instances[self.tokens[token]])
        if tool and self.tools.get(tool) != "ACTIVE":
            raise NoToolError
        if fiber.alive and self.is_current(fiber.frames):
            for other in self.instances.values():
                missed = other.id in existing and other.metadata.get("step-family") == step.family
                if missed and self.is_left(other, step.holder):
                    self.check(False, "a fresh instance although an earlier attempt's is alive")
        owner = Owner(fiber.run.id, subflow_run_id=fiber.subflows[-1] if fiber.subflows else "", pid=1)
        created = EPOCH + timedelta(seconds=self.now)
        instance = Instance(next(self.numbers), label(step, owner, created, LEASE), self.now + LEASE)
        instance.metadata["tool"] = tool
        self.instances[instance.id] = instance
        self.tokens[token] = instance.id
        return self.seen(instance)

    def find(self, family: str) -> list[Seen]:
        found = (one for one in self.instances.values() if one.metadata.get("step-family") == family)
        return [self.seen(one) for one in found]

    def get(self, number: int) -> Seen:
        return self.seen(self.instances[number])

    def update(self, number: int, timeout: int = 0, **metadata: str) -> None:
        instance = self._get(number)
        if timeout:
            instance.expires = self.now + timeout
        instance.metadata.update(metadata)

    def resume(self, number: int) -> None:
        instance = self._get(number)
        if instance.status == "PAUSED":
            instance.status = "RUNNING"
            instance.expires = self.now + LEASE

    def claim_instance(self, number: int, mine: Holder) -> str:
        instance = self._get(number, running=True)
        if instance.released:
            return "ended"
        found = self.rules.relation(mine, instance.chain[-1]) if instance.chain else "superseded"
        if found == "superseded":
            instance.chain.append(mine)
        return found

    def read_claim(self, number: int) -> tuple[list[Holder], str]:
        instance = self._get(number, running=True)
        return list(instance.chain), instance.released

    def write_claim(self, number: int, mine: Holder) -> None:
        self._get(number, running=True).chain.append(mine)

    def release(self, number: int, mine: Holder, why: str) -> str:
        """Record in the sandbox that its holder ends it. A later claim finds the record."""
        instance = self._get(number, running=True)
        found = self.rules.relation(mine, instance.chain[-1]) if instance.chain else "same"
        if found == "same":
            instance.released = why
        return found

    def execute(self, number: int, family: str, mine: Holder, first: int) -> Claim:
        instance = self._get(number, running=True)
        journals = instance.journals.setdefault(family, [])
        found = self.rules.claim(mine, [journal.chain[-1] for journal in journals], first)
        if found.outcome == "new":
            journals.append(Journal([mine]))
        elif found.outcome == "taken":
            journals[found.number].chain.append(mine)
        return found

    def end(self, session: Open, status: str) -> None:
        """Stop or pause an instance."""
        instance = self._get(session.instance)
        others = [one for one in self.at_work(instance) if one.step.holder != session.step.holder]
        self.check(not others, "an instance was ended under another execution")
        instance.status = status

    def stop_left(self, number: int) -> None:
        """Stop an instance that an earlier attempt had finished with."""
        instance = self.instances[number]
        self.check(not self.at_work(instance), "an instance was ended under an execution that works in it")
        instance.status = "STOPPED"

    def mark(self, session: Open, name: str) -> None:
        instance = self._get(session.instance)
        others = [one for one in self.at_work(instance) if one.step.holder != session.step.holder]
        self.check(not others, "an instance was kept under another execution")
        instance.metadata[name] = "yes"

    def create_tool(self, name: str) -> bool:
        if self.tools.get(name) == "DELETING":
            return False
        self.tools[name] = "ACTIVE"
        return True

    def delete_tool(self, name: str) -> None:
        in_use = any(one.live and one.metadata.get("tool") == name for one in self.instances.values())
        if not in_use and name in self.tools:
            self.tools[name] = "DELETING"
