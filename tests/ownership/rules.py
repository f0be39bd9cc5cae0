"""The rules of ownership that executions of the model follow, and faults in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ags_flows.ownership import Claim, Holder, Step, claim, may_take_over, relation


@dataclass(frozen=True)
class Rules:
    """The rules that executions follow. The defaults are sound; each other value is a fault that the model finds."""

    relation: Callable[[Holder, Holder], str] = relation
    claim: Callable[[Holder, Sequence[Holder], int], Claim] = claim
    may_take_over: Callable[[Holder, str, dict[str, str]], bool] = may_take_over
    token: Callable[[Step, int], str] = Step.client_token
    compare_and_set: bool = True
    """An instance is claimed in one atomic step, not with a look and a write."""
    release: bool = True
    """An end is first recorded in the sandbox, where the claim is: only one of claim and end can win."""
    look: bool = True
    """A renewal and an end look at the holder in the metadata first."""
    latest_first: bool = True
    """Candidates of the latest attempt come first, then the oldest; otherwise simply the oldest."""
    ordinal: bool = True
    """The family of a start contains how many equal starts the same execution has made before."""
    repeat_from_zero: bool = True
    """A request that is repeated does not use the hint about the first free place."""
    renew_first: bool = True
    """The lease is renewed when an instance is taken over."""
    generations: bool = True
    """If the response to a token has a dead instance, the token of the next generation is used."""
    unique_items: bool = True
    """The frame of a batch item differs in each batch and attempt; otherwise it is the item's key and attempt."""
    adopt: bool = True
    """A retry looks for an instance of an earlier attempt."""
