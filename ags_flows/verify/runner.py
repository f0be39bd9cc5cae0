"""Running checks: one after the other, each on its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from ags_flows.errors import AGSFlowsError, ConfigurationError, UnsupportedError
from ags_flows.verify.account import Account
from ags_flows.verify.check import Check, Different, NotAvailable, Result, Status
from ags_flows.verify.groups import GROUPS

_NOT_THERE = ("InvalidAction", "UnsupportedOperation", "UnauthorizedOperation", "NoSuchProduct")
"""Codes of an account or region that does not have an action."""


def checks_of(only: Sequence[str] = (), *, quick: bool = False) -> list[Check]:
    """Return the checks of some groups, or of all.

    Args:
        only: Names of groups.
        quick: Whether to leave out those that wait for half a minute or more.

    Raises:
        ConfigurationError: There is no such group.
    """
    known = [group.name for group in GROUPS]
    for name in only:
        if name not in known:
            raise ConfigurationError(f"There is no group {name!r}.", hint=f"Known: {', '.join(known)}.")
    return [
        check
        for group in GROUPS
        if not only or group.name in only
        for check in group.checks
        if not (quick and check.slow)
    ]


def run_checks(
    account: Account, checks: Sequence[Check], on_start: Callable[[Check], object] = lambda check: None
) -> Iterator[Result]:
    """Yield the result of each check as soon as it is there; one that fails does not stop the others.

    Args:
        account: The account. The caller closes it.
        checks: The checks.
        on_start: Gets each check before it runs.
    """
    for check in checks:
        on_start(check)
        began, before = time.monotonic(), {**account.answers, **account.codes}
        status, seen = _outcome(account, check)
        learned = {**account.answers, **account.codes}.items() - before.items()
        names = frozenset(name for name, _ in learned)
        yield Result(check.group, check.sentence, status, seen, time.monotonic() - began, names)


def _outcome(account: Account, check: Check) -> tuple[Status, str]:
    try:
        return "as expected", str(check.function(account) or "")
    except Different as seen:
        return "different", str(seen)
    except (NotAvailable, UnsupportedError) as error:
        return "not available here", str(error)
    except AGSFlowsError as error:
        code = f" [{error.code}]" if error.code else ""
        missing = error.code in _NOT_THERE
        return "not available here" if missing else "failed", f"{type(error).__name__}: {error.message}{code}"
    except Exception as error:  # noqa: BLE001 - whatever it is, the other checks run
        return "failed", f"{type(error).__name__}: {error}"[:300]
