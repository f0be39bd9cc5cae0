"""How long `ags-flows verify` takes against the emulator."""

from __future__ import annotations

from collections.abc import Iterator

from ags_flows.verify.account import Account
from ags_flows.verify.runner import checks_of, run_checks
from bench.figure import Figure, seconds
from bench.sandbox import running_emulator_process


def figures() -> Iterator[Figure]:
    """Run all checks, those included that wait for half a minute."""
    with running_emulator_process("--quiet") as config:
        account = Account(config)
        statuses: list[str] = []
        took = seconds(lambda: statuses.extend(result.status for result in run_checks(account, checks_of())))
        account.close()
    yield Figure("ags-flows verify, all checks", took, "s", 60.0)
    yield Figure("checks as expected", statuses.count("as expected"), "", len(checks_of()), True)
