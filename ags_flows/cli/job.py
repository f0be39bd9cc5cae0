"""A job from a terminal: `provision_and_run`, with the output of the command on standard output and standard error."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Sequence
from typing import Any

from prefect.settings import PREFECT_API_URL

from ags_flows.blocks import AGSConfig
from ags_flows.cli.steps import run_with_steps
from ags_flows.errors import CommandFailedError, ConfigurationError
from ags_flows.flows import provision_and_run
from ags_flows.models import RunReport, ToolSpec
from ags_flows.models.checks import check_name
from ags_flows.run.logs import copied_output


def files_and_variables(
    uploads: Sequence[str], downloads: Sequence[str], env: Sequence[str], secrets: Sequence[str]
) -> dict[str, Any]:
    """Return the arguments of `provision_and_run` that are pairs on a command line.

    Raises:
        ConfigurationError: One is not of its form, or secrets are asked for without a Prefect server.
    """
    if secrets and not PREFECT_API_URL.value():
        raise ConfigurationError(
            "secret: Secret blocks are on a Prefect server, and PREFECT_API_URL is not set.",
            hint="Set it, or pass the value with --env.",
        )
    return {
        "uploads": _pairs("upload", uploads, ":", "LOCAL:REMOTE"),
        "downloads": _pairs("download", downloads, ":", "REMOTE:LOCAL"),
        "env": _pairs("env", env, "=", "NAME=VALUE"),
        "secrets": _pairs("secret", secrets, "=", "NAME=BLOCK"),
    }


def tool_for(config: AGSConfig, tool: str | None, image: str | None) -> str | ToolSpec:
    """Return the tool to use, or what a dedicated one is made from.

    Raises:
        ConfigurationError: A tool is named, and also the image that it would be made from.
    """
    check_name(tool, "tool")
    check_name(image, "image")
    if tool and image:
        raise ConfigurationError("tool and image: give one of them.", hint="A tool has its image already.")
    if tool or (config.tool_id and not image):
        return tool or config.tool_id
    return ToolSpec(name=f"run-{uuid.uuid4().hex[:12]}", image=image or config.image)


def run_job(command: str, quiet: bool, *, echo: bool, timeout: float | None, **options: Any) -> RunReport:
    """Run a command in a new sandbox; its output is streamed to standard output and standard error.

    If the settings name a Prefect server, the run is recorded there: as a failed one if the command fails. Without a
    server the job runs too.

    Args:
        command: Run by `bash -l -c`.
        quiet: Keep the log of the steps to warnings.
        echo: Whether the output is written.
        timeout: Seconds; None and 0 mean no limit.
        **options: Those of `provision_and_run`.

    Raises:
        ConfigurationError: An option is not valid.
        CommandTimeoutError: The command reached its time limit.
    """
    if timeout is not None and timeout < 0:
        raise ConfigurationError(f"timeout must be >= 0 (0 means no limit), got {timeout:g}.")
    with copied_output(_write if echo else _ignore):
        try:
            return run_with_steps(provision_and_run, quiet, command=command, timeout=timeout or 0.0, **options)
        except CommandFailedError as error:
            # Its exit code is that of `ags-flows run`.
            if error.report is None:
                raise
            return error.report


def _write(stream: str, text: str) -> None:
    target = sys.stderr if stream == "stderr" else sys.stdout
    try:
        target.write(text)
        target.flush()
    except BrokenPipeError:
        # The reader has gone, as of `| head -1`: the job goes on, and downloads its results.
        os.dup2(os.open(os.devnull, os.O_WRONLY), target.fileno())


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
