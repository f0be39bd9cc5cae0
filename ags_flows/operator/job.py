"""A job from a terminal: `provision_and_run` with the command's output as its own."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Sequence
from typing import Any

from prefect.settings import PREFECT_API_URL

from ags_flows.blocks import AGSConfig
from ags_flows.errors import ConfigurationError
from ags_flows.flows import provision_and_run
from ags_flows.models import RunReport, ToolSpec
from ags_flows.operator.steps import steps_on_stderr
from ags_flows.run.automations import require_server
from ags_flows.run.logs import copied_output


def job_options(
    tool: str | None,
    image: str | None,
    uploads: Sequence[str],
    downloads: Sequence[str],
    env: Sequence[str],
    secrets: Sequence[str],
    timeout: float | None,
    on_failure: str,
) -> dict[str, Any]:
    """Return the arguments of `provision_and_run` for what was written on a command line.

    Raises:
        ConfigurationError: Something is written in another way than it has to be.
    """
    if tool and image:
        raise ConfigurationError("tool and image: give one of them.", hint="A tool has its image already.")
    if on_failure not in ("stop", "keep", "pause"):
        raise ConfigurationError(f"on-failure: {on_failure!r} is none of stop, keep, pause.")
    if timeout is not None and timeout < 0:
        raise ConfigurationError(f"timeout: {timeout:g} s is less than none at all.", hint="0 is for no limit.")
    if secrets and not PREFECT_API_URL.value():
        raise ConfigurationError(
            "secret: Secret blocks are on a Prefect server, and PREFECT_API_URL is not set.",
            hint="Set it, or pass the value with --env.",
        )
    config = AGSConfig()
    if not tool and not image and config.tool_id:
        tool = config.tool_id
    spec = ToolSpec(name=f"run-{uuid.uuid4().hex[:12]}", image=image or config.image)
    return {
        "tool": tool or spec,
        "uploads": _pairs("upload", uploads, ":", "LOCAL:REMOTE"),
        "downloads": _pairs("download", downloads, ":", "REMOTE:LOCAL"),
        "env": _pairs("env", env, "=", "NAME=VALUE"),
        "secrets": _pairs("secret", secrets, "=", "NAME=BLOCK"),
        "timeout": timeout,
        "on_failure": on_failure,
    }


def run_job(command: str, quiet: bool, echo: bool = True, **options: Any) -> RunReport:
    """Run a command in a sandbox of its own; its output goes to standard output and standard error as it comes.

    With a Prefect server in the settings the run is recorded there; without one it runs all the same.

    Args:
        command: Run by `bash -l -c`.
        quiet: Keep the log of the steps to warnings.
        echo: Whether the output is written as it comes.
        **options: Those of `provision_and_run`.
    """
    flow = provision_and_run.fn
    if PREFECT_API_URL.value():
        require_server()
        flow = provision_and_run
    with steps_on_stderr(quiet), copied_output(_write if echo else _ignore):
        return flow(command, check=False, **options)


def _write(stream: str, text: str) -> None:
    target = sys.stderr if stream == "stderr" else sys.stdout
    target.write(text)
    target.flush()


def _ignore(stream: str, text: str) -> None:
    return


def _pairs(option: str, given: Sequence[str], separator: str, form: str) -> dict[str, str]:
    pairs = {}
    for item in given:
        left, found, right = item.partition(separator)
        if not (left and found and right):
            raise ConfigurationError(f"{option}: {item!r} is not of the form {form}.")
        pairs[left] = right
    return pairs
