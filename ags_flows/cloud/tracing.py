"""OpenTelemetry spans for requests to AGS, below those that Prefect makes for flow runs and task runs.

They go where the application sends its traces. Without OpenTelemetry, or without a tracer provider, they cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def request_span(name: str, **attributes: str | int | float) -> Iterator[None]:
    """Make a client span for the length of a block; an error in it is recorded, by its class and its message.

    Args:
        name: Such as `ags.StartSandboxInstance`.
        attributes: Without secrets. They get the prefix `ags.`.
    """
    try:
        from opentelemetry import trace
    except ModuleNotFoundError:
        yield
        return
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        # Nobody has set one.
        yield
        return
    named = {f"ags.{key}": value for key, value in attributes.items()}
    with trace.get_tracer("ags_flows").start_as_current_span(name, kind=trace.SpanKind.CLIENT, attributes=named):
        yield
