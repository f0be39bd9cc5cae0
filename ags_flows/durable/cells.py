"""Code that is executed once in a sandbox, also when its step is repeated.

The interpreter has no memory of what it was asked. So a cell is claimed in the sandbox before it is sent, and its
result is kept there after it: whoever repeats the step gets the result. A claim without a result is an outcome of its
own: the code may have run, and is not sent again.
"""

from __future__ import annotations

from collections.abc import Callable

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.errors import AGSFlowsError, CodeTimeoutError, OutcomeUnknownError
from ags_flows.models import CodeResult

CALL_TIMEOUT = 30.0
MOST_KEPT = 64 << 20
"""Bytes of a result that are kept for a repeated step; a larger one has an unknown outcome then."""

# `mkdir` makes the claim: it succeeds once. The umask keeps results from other users of the sandbox.
_CLAIM = """
umask 077
D="$HOME/.ags_flows/cells/{key}"
mkdir -p "${{D%/*}}" || exit 9
if mkdir "$D" 2>/dev/null; then echo claimed; elif [ -s "$D/result" ]; then echo done; else echo unknown; fi
echo "$D"
"""


def run_once(plane: DataPlane, key: str, run: Callable[[], CodeResult]) -> CodeResult:
    """Execute code once under a key, or return what it gave the first time.

    Args:
        plane: The sandbox.
        key: Names the cell in this sandbox: letters and digits.
        run: Executes it.

    Raises:
        OutcomeUnknownError: It was sent before, and nobody can know what became of it.
    """
    told = plane.run(_CLAIM.format(key=key), timeout=CALL_TIMEOUT)
    state, _, directory = told.stdout.strip().rpartition("\n")
    state = state.rsplit("\n")[-1]
    if state == "done":
        return CodeResult.model_validate_json(plane.read(f"{directory}/result"))
    if state != "claimed":
        raise OutcomeUnknownError(
            f"This code was sent to {plane.instance_id} before, and its result was lost.",
            hint="It may have run. Look into the sandbox, or run it anew in a fresh one.",
        )
    try:
        result = run()
    except (CodeTimeoutError, OutcomeUnknownError):
        raise
    except AGSFlowsError:
        # Refused before it ran: an attempt that follows may send it.
        plane.remove(directory)
        raise
    text = result.model_dump_json().encode()
    if len(text) <= MOST_KEPT:
        plane.write(f"{directory}/new", text)
        plane.move(f"{directory}/new", f"{directory}/result")
    return result
