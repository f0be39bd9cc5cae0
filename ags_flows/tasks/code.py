"""The task that runs code in the code interpreter."""

from __future__ import annotations

from collections.abc import Mapping

from ags_flows.blocks import AGSConfig
from ags_flows.errors import CodeFailedError
from ags_flows.execution.planes import open_plane
from ags_flows.models import CodeResult, Instance
from ags_flows.redaction import Redactor
from ags_flows.tasks.instances import instance_id
from ags_flows.tasks.logs import OutputLog, run_logger
from ags_flows.tasks.retries import sandbox_task

DEFAULT_TIMEOUT = 300.0


@sandbox_task("run code", "language")
def run_code(
    instance: Instance | str,
    code: str,
    language: str = "python",
    timeout: float = DEFAULT_TIMEOUT,
    env: Mapping[str, str] | None = None,
    context: str | None = None,
    check: bool = False,
    config: AGSConfig | None = None,
) -> CodeResult:
    """Run code in the code interpreter of a sandbox, with charts, tables and images as results.

    Variables live on between calls in the same sandbox. Only tools of type `code-interpreter` have an interpreter.

    Args:
        instance: The instance or its id.
        code: The code.
        language: `python`, `javascript`, `typescript`, `bash`, `r` or `java`.
        timeout: Seconds.
        env: Environment of this execution.
        context: The id of a context of its own, instead of the language's default one.
        check: Raise when the code raised.
        config: Where AGS is; by default from the environment.

    Raises:
        CodeFailedError: With `check=True`, when the code raised an exception.
        UnsupportedError: The tool has no code interpreter.
    """
    config = config or AGSConfig()
    plane, _ = open_plane(config.connection(), instance_id(instance))
    log = OutputLog(run_logger(), Redactor(()))
    try:
        result = plane.run_code(
            code,
            language=language,
            timeout=timeout,
            env=env,
            context=context,
            on_stdout=log.reader("stdout"),
            on_stderr=log.reader("stderr"),
        )
    finally:
        log.close()
    if result.error is None:
        return result
    run_logger().warning("The code raised %s: %s", result.error.name, result.error.value)
    if check:
        raise CodeFailedError(f"The code raised {result.error.name}: {result.error.value}", result=result)
    return result
