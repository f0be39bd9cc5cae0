"""Checks of the keys and of what a signature depends on."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

import httpx
from pydantic import SecretStr

from ags_flows.cloud.certificates import verification
from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.cloud.proxies import proxy_for
from ags_flows.errors import AGSFlowsError, CredentialsError
from ags_flows.verify.account import Account
from ags_flows.verify.check import Different, Group, NotAvailable, expect

GROUP = Group("credentials", shares=())


@GROUP.check
def keys_are_accepted(account: Account) -> str:
    """The keys are accepted."""
    for _ in range(3):
        began = time.monotonic()
        account.control.call("DescribeSandboxToolList", {"Limit": 1})
        account.sample("call.seconds", time.monotonic() - began)
    return f"{len(account.control.list_tools())} tools in {account.connection.region}"


@GROUP.check
def wrong_key_is_refused(account: Account) -> str | None:
    """A wrong secret key is refused as a matter of credentials."""
    control = ControlPlane(replace(account.connection, secret_key=SecretStr("not-the-secret-key")))
    try:
        control.list_tools()
    except CredentialsError as error:
        account.codes["AuthFailure.SignatureFailure"] = error.code or ""
        return error.code
    except AGSFlowsError as error:
        raise Different(f"{type(error).__name__} {error.code}") from error
    finally:
        control.close()
    raise Different("it was accepted")


@GROUP.check
def clock_agrees(account: Account) -> str:
    """The clock of this machine agrees with that of AGS."""
    url = account.connection.control_url
    verify = verification(account.connection.verify_tls)
    answer = httpx.head(url, verify=verify, proxy=proxy_for(url), trust_env=False, timeout=30)
    if "date" not in answer.headers:
        raise NotAvailable("the responses have no date")
    skew = (datetime.now(timezone.utc) - parsedate_to_datetime(answer.headers["date"])).total_seconds()
    expect(abs(skew) < 300, f"{skew:.0f} s")
    return f"{abs(skew):.0f} s apart"


@GROUP.check
def errors_name_their_request(account: Account) -> None:
    """An error response names its request, for support."""
    try:
        account.control.call("StopSandboxInstance", {"InstanceId": "0" * 32})
    except AGSFlowsError as error:
        expect(error.request_id, "no request id")
        return
    raise Different("an unknown instance was stopped")
