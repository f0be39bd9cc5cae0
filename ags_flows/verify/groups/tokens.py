"""Checks of access tokens."""

from __future__ import annotations

from datetime import datetime, timezone

from ags_flows.verify.account import Account
from ags_flows.verify.check import Group, NotAvailable, expect

GROUP = Group("tokens", instances=1)
ENVD = 49983
LIST = "/filesystem.Filesystem/ListDir"


def _envd(account: Account, token: str | None) -> int:
    response = account.http("POST", account.instance().id, ENVD, LIST, token, json={"path": "/", "depth": 1})
    return response.status_code


@GROUP.check
def token_is_acquired(account: Account) -> str:
    """A token is acquired, and has the time of its end."""
    token = account.control.acquire_token(account.instance().id)
    expect(token.token.get_secret_value(), "an empty token")
    expect(token.expires_at is not None, "no end")
    assert token.expires_at is not None
    lifetime = (token.expires_at - datetime.now(timezone.utc)).total_seconds()
    account.answers["token.lifetime"] = round(lifetime)
    expect(lifetime > 60, f"{lifetime:.0f} s")
    return f"{lifetime / 3600:.1f} h"


@GROUP.check
def token_opens_envd(account: Account) -> None:
    """A token opens envd."""
    status = _envd(account, account.token())
    expect(status == 200, f"status {status}")


@GROUP.check
def earlier_token_stays_valid(account: Account) -> None:
    """A token stays valid when another one is acquired."""
    first = account.token()
    account.token()
    status = _envd(account, first)
    expect(status == 200, f"status {status}")


@GROUP.check
def wrong_token_is_refused(account: Account) -> str:
    """A wrong token is refused with status 401."""
    status = _envd(account, "sit_" + "0" * 48)
    account.answers["unauthorized.envd"] = status
    expect(status == 401, f"status {status}")
    return str(status)


@GROUP.check
def no_token_is_refused(account: Account) -> None:
    """A request without a token is refused with status 401."""
    status = _envd(account, None)
    expect(status == 401, f"status {status}")


@GROUP.check
def other_ports_need_a_token(account: Account) -> str:
    """The other ports need a token too."""
    status = account.http("GET", account.instance().id, 8000, "/").status_code
    account.answers["unauthorized.port"] = status
    expect(status == 401, f"status {status}")
    return str(status)


@GROUP.check
def token_of_another_instance_is_refused(account: Account) -> None:
    """A token of another instance is refused."""
    status = _envd(account, account.token("other"))
    account.release(account.instance("other").id)
    expect(status == 401, f"status {status}")


@GROUP.check
def traffic_token_opens_other_ports(account: Account) -> None:
    """The traffic token opens ports other than envd's."""
    token = account.control.acquire_token(account.instance().id).traffic_token
    if token is None:
        raise NotAvailable("there is no traffic token")
    status = account.http("GET", account.instance().id, 8000, "/", token.get_secret_value()).status_code
    expect(status not in (401, 403), f"status {status}")
