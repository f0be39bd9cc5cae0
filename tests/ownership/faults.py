"""Rules with one fault each, and programs in which the model finds the fault."""

from dataclasses import dataclass
from functools import partial

from ags_flows.ownership import KEPT, Claim, may_take_over, relation

from . import programs
from .rules import Rules

GIVEN = {"same": "same", "superseded": "taken", "stale": "stale"}


def claim_by(compare, mine, held, first=0):
    """The rule of `claim`, with another relation."""
    for number in range(first, len(held)):
        found = compare(mine, held[number])
        if found in GIVEN:
            return Claim(number, GIVEN[found])
    return Claim(max(first, len(held)), "new")


def siblings_are_superseded(mine, theirs):
    found = relation(mine, theirs)
    return "superseded" if found == "sibling" else found


def stale_is_a_sibling(mine, theirs):
    found = relation(mine, theirs)
    return "sibling" if found == "stale" else found


def innermost_decides(mine, theirs):
    """Compare the attempts of the innermost execution that both paths have."""
    pairs = list(zip(mine.enclosing, theirs.enclosing, strict=False))
    for own, other in reversed(pairs):
        if (own.kind, own.id) == (other.kind, other.id) and own.attempt != other.attempt:
            return "superseded" if own.attempt > other.attempt else "stale"
        if (own.kind, own.id) != (other.kind, other.id):
            return "sibling"
    return relation(mine, theirs)


class Counted:
    """Count the calls of an execution in memory, and take the number as the place."""

    def __init__(self):
        self.calls = {}

    def __call__(self, mine, held, first=0):
        calls = self.calls.setdefault(mine.enclosing, [])
        if mine.call not in calls:
            calls.append(mine.call)
        number = calls.index(mine.call)
        return Claim(number, "taken") if number < len(held) else Claim(len(held), "new")


def first_free(mine, held, first=0):
    """Never take a place over."""
    same = [number for number, theirs in enumerate(held) if theirs == mine]
    return Claim(same[0], "same") if same else Claim(len(held), "new")


def despite_marks(mine, status, metadata):
    return may_take_over(mine, status, {name: value for name, value in metadata.items() if name != KEPT})


def compared_by(compare):
    return Rules(relation=compare, claim=partial(claim_by, compare))


@dataclass(frozen=True)
class Fault:
    """A fault, the programs that it shows in, and what the model reports."""

    rules: object
    programs: tuple
    found: str


def fault(found, *names, **rules):
    return Fault(partial(Rules, **rules), tuple(programs.ALL[name] for name in names), found)


def wrong_relation(found, compare, *names):
    return Fault(partial(compared_by, compare), tuple(programs.ALL[name] for name in names), found)


FAULTS = {
    "siblings are taken over": wrong_relation(
        "two current|ran 1 times", siblings_are_superseded, "parallel equal places", "threads"
    ),
    "a superseded attempt continues": wrong_relation("ran", stale_is_a_sibling, "one session", "task retries"),
    "the innermost execution decides": wrong_relation("", innermost_decides, "task retries", "a shared sandbox"),
    "commands are never taken over": fault("ran", "one session", claim=first_free),
    "sandboxes are never taken over": fault("a fresh instance", "one session", "a subflow", adopt=False),
    "one ClientToken for a family": fault(
        "two current places", "parallel equal places", token=lambda step, generation: f"{step.family}{generation}"
    ),
    "marks are ignored": fault("", "a kept sandbox", may_take_over=despite_marks, release=False),
    "leases are renewed without a look": fault("renewed the lease", "one session", "batches", look=False),
}
COUNTED = Fault(lambda: Rules(claim=Counted()), (programs.ALL["a shared sandbox"],), "two current calls")
FAULTS["calls are counted in memory"] = COUNTED
