"""The events of a process, as its streams carry them."""

from __future__ import annotations

from typing import Literal

from e2b.envd.process.process_pb import ProcessEvent
from protobuf import Oneof

Stream = Literal["stdout", "stderr", "pty"]

_SIGNALS = {
    1: "hangup",
    2: "interrupt",
    3: "quit",
    4: "illegal instruction",
    6: "aborted",
    7: "bus error",
    8: "floating point exception",
    9: "killed",
    11: "segmentation fault",
    13: "broken pipe",
    14: "alarm clock",
    15: "terminated",
}


def started(pid: int) -> ProcessEvent:
    """Return the first event of every stream."""
    event: Oneof[Literal["start"], ProcessEvent.StartEvent] = Oneof("start", ProcessEvent.StartEvent(pid=pid))
    return ProcessEvent(event=event)


def said(stream: Stream, data: bytes) -> ProcessEvent:
    """Return the event of a piece of output."""
    output: Oneof[Literal["stdout", "stderr", "pty"], bytes] = Oneof(stream, data)
    event: Oneof[Literal["data"], ProcessEvent.DataEvent] = Oneof(
        "data",
        ProcessEvent.DataEvent(output=output),  # type: ignore[arg-type]
    )
    return ProcessEvent(event=event)


def keepalive() -> ProcessEvent:
    """Return a sign of life."""
    event: Oneof[Literal["keepalive"], ProcessEvent.KeepAlive] = Oneof("keepalive", ProcessEvent.KeepAlive())
    return ProcessEvent(event=event)


def ended(code: int) -> ProcessEvent:
    """Return the event of an end, in the words of Go's `os.ProcessState`.

    Args:
        code: The exit code, negative for a signal.
    """
    if code >= 0:
        status = f"exit status {code}"
        end = ProcessEvent.EndEvent(exit_code=code, exited=True, status=status, error=status if code else None)
    else:
        status = f"signal: {_SIGNALS.get(-code, str(-code))}"
        end = ProcessEvent.EndEvent(exit_code=-1, exited=False, status=status, error=status)
    event: Oneof[Literal["end"], ProcessEvent.EndEvent] = Oneof("end", end)
    return ProcessEvent(event=event)
