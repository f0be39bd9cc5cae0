"""The steps of a report: what was done, for how long, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ags_flows.errors import CommandFailedError
from ags_flows.models import Step
from ags_flows.run.redaction import Redactor
from ags_flows.run.secrets import recorded_secrets

LONGEST_NAME = 80
LONGEST_MESSAGE = 300


@contextmanager
def timed(steps: list[Step], name: str) -> Iterator[Callable[[str], None]]:
    """Append one step to `steps`, with its duration and how it ended.

    Tokens in its name and message are masked, and secrets that are loaded in the block.

    Args:
        steps: The list.
        name: What is done; its first line is shown.

    Yields:
        A function that marks the step as failed, with a reason, where the block does not raise.
    """
    started = time.monotonic()
    reasons: list[str] = []
    with recorded_secrets() as secrets:
        try:
            yield reasons.append
        except BaseException as error:
            reasons.append(_reason(error))
            raise
        finally:
            redactor = Redactor(secrets)
            steps.append(
                Step(
                    name=shorten(redactor.text(name)),
                    seconds=time.monotonic() - started,
                    status="failed" if reasons else "completed",
                    message=shorten(redactor.text(reasons[-1]), LONGEST_MESSAGE) if reasons else "",
                )
            )


def _reason(error: BaseException) -> str:
    """Return why a step failed. The name of a step has its command already."""
    if type(error) is CommandFailedError and error.result is not None:
        return f"exit code {error.result.exit_code}"
    return str(error) or type(error).__name__


def shorten(text: str, longest: int = LONGEST_NAME) -> str:
    """Return the first line of a text, masked, with an ellipsis where something was left out."""
    line, _, rest = Redactor().text(text.strip()).partition("\n")
    if len(line) <= longest and not rest.strip():
        return line
    return f"{line[: longest - 1].rstrip()}…"
