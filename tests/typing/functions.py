"""What type checkers know of functions that run in sandboxes. `make types` checks this file; nothing executes it.

A wrong use is marked by the error that it has: mypy also reports a mark without an error.
"""

from prefect import Task
from prefect.futures import PrefectFuture, PrefectFutureList
from typing_extensions import assert_type

from ags_flows import in_sandbox, sandbox_session


@in_sandbox
def plain(day: str, limit: int = 10) -> dict[str, int]:
    """Return something."""
    return {day: limit}


@in_sandbox(image="python:3.11", packages=["pandas==2.2.3"], retries=2)
def decorated(day: str, *, limit: int = 10) -> list[float]:
    """Return something else."""
    return [float(day) * limit]


def undecorated(path: str) -> bytes:
    """Return a third thing."""
    return path.encode()


assert_type(plain("x"), dict[str, int])
assert_type(decorated("x", limit=3), list[float])
assert_type(plain.submit("x", limit=3), PrefectFuture[dict[str, int]])
assert_type(plain.submit("x").result(), dict[str, int])
assert_type(decorated.map(["x", "y"]), PrefectFutureList[list[float]])
assert_type(decorated.map(["x", "y"]).result(), list[list[float]])
again: Task[..., list[float]] = decorated.with_options(retries=0)

plain(5)  # type: ignore[call-overload]
plain("x", most=3)  # type: ignore[call-overload]
plain()  # type: ignore[call-overload]
decorated("x", 3)  # type: ignore[call-overload]
in_sandbox(imge="python:3.11")  # type: ignore[call-overload]
in_sandbox(image="python:3.11", packages=5)  # type: ignore[call-overload]

with sandbox_session("base") as sandbox:
    assert_type(sandbox.call(undecorated, "etl.py"), bytes)
    assert_type(sandbox.call(plain, "x", limit=3), dict[str, int])
    sandbox.call(undecorated, 5)  # type: ignore[arg-type]
    sandbox.call(undecorated)  # type: ignore[call-arg]
