"""OpenTelemetry spans for requests to AGS, below those that Prefect makes for flow runs and task runs.

They go where the application sends its traces. Without OpenTelemetry, or without a tracer provider, they cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def request_span(name: str, **attributes: str | int | float) -> Iterator[None]:
    """Make a client span for the length of a block, and record the class, the code and the RequestId of an error.

    Messages of errors are not recorded: they can contain commands and their output.

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
        # No tracer provider is set.
        yield
        return
    named = {f"ags.{key}": value for key, value in attributes.items()}
    with trace.get_tracer("ags_flows").start_as_current_span(
        name, kind=trace.SpanKind.CLIENT, attributes=named, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield
        except Exception as error:
            kind = type(error)
            details = {"code": getattr(error, "code", None), "request_id": getattr(error, "request_id", None)}
            span.set_attributes({f"ags.{key}": value for key, value in details.items() if isinstance(value, str)})
            span.add_event("exception", {"exception.type": f"{kind.__module__}.{kind.__qualname__}"})
            span.set_status(trace.Status(trace.StatusCode.ERROR, kind.__name__))
            raise
