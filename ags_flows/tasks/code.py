"""Tasks that run code in the code interpreter of a sandbox."""

from __future__ import annotations

from collections.abc import Mapping

from ags_flows.blocks import AGSConfig, resolve_config
from ags_flows.cloud.code_interpreter import CodeInterpreter
from ags_flows.cloud.data_planes import open_plane
from ags_flows.durable.cells import Once
from ags_flows.durable.changes import change_once
from ags_flows.durable.environment import existing_directory
from ags_flows.errors import CodeFailedError, ConfigurationError
from ags_flows.models import CodeContext, CodeResult, Instance
from ags_flows.run.artifacts import show_results
from ags_flows.run.awaitable import flag_of_wait
from ags_flows.run.holder import identify
from ags_flows.run.logs import OutputLog, run_logger
from ags_flows.run.redaction import Redactor
from ags_flows.run.secrets import merged
from ags_flows.run.task_options import sandbox_task
from ags_flows.tasks.instances import instance_id

DEFAULT_TIMEOUT = 300.0
LONGEST_LOGGED = 4_000
"""Characters of the message of an error that the log has."""
DEFAULT_LIMIT = 1 << 20


@sandbox_task("run code", "code")
def run_code(
    instance: Instance | str,
    code: str,
    language: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    env: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    context: CodeContext | str | None = None,
    check: bool = False,
    limit: int = DEFAULT_LIMIT,
    artifacts: bool = True,
    step: str = "",
    config: AGSConfig | str | None = None,
) -> CodeResult:
    """Run code in the code interpreter of a sandbox, with pictures, tables and charts as results.

    Variables live on between calls in the same sandbox. Only tools of type `code-interpreter` have an interpreter.
    The same sandbox never runs the cell of one step twice: a retry gets the result of the first time. In a flow run,
    pictures, tables and texts become artifacts, and output goes to the run's log.

    Args:
        instance: The instance or its id.
        code: The code.
        language: `python`, `javascript`, `typescript`, `bash`, `r` or `java`; by default that of `context`, or
            `python`.
        timeout: Seconds; then the code is interrupted. 0: no limit.
        env: Environment of this execution: texts; numbers and booleans are converted (`true`, `false`).
        secrets: Environment from Prefect Secret blocks: variable name to name of the block. The values are masked in
            log, result and artifacts.
        context: A context of `create_code_context`, instead of the language's default one. Its language is used: that
            of a context that is given by its id is not known here, and not compared with `language`.
        check: Raise when the code raised.
        limit: How many bytes the result may hold of each stream, and of message and traceback of an error: head and
            tail of longer ones.
        artifacts: Whether results are shown as artifacts of the flow run.
        step: Distinguishes identical calls in one flow run whose order may change between attempts.
        config: Where AGS is, or the name of a saved block; by default the environment.

    Returns:
        The outcome. An exception of the code is a value, unless `check=True`.

    Raises:
        ConfigurationError: The context has another language, or an argument is wrong; nothing was sent.
        CodeFailedError: With `check=True`, when the code raised an exception.
        CodeTimeoutError: The time limit was reached.
        OutcomeUnknownError: It may have run; it is not repeated.
        UnsupportedError: The tool has no code interpreter, or not this language.

    Example:
        ```python
        result = run_code(instance, "import math; math.factorial(20)")
        assert result.text == "2432902008176640000"
        ```
    """
    language = _language_of(language, context)
    env = env or {}
    environment, hidden = merged(env, secrets)
    redactor = Redactor(hidden.values())
    reference = instance_id(instance)
    plane, cancelled = open_plane(resolve_config(config).connection(), reference)
    context_id = context.id if isinstance(context, CodeContext) else context
    log = OutputLog(run_logger(), redactor)

    def execute() -> CodeResult:
        return CodeInterpreter(plane).run(
            code,
            language=language,
            context=context_id,
            timeout=timeout,
            env=environment,
            on_stdout=log.reader("stdout"),
            on_stderr=log.reader("stderr"),
            limit=limit,
            cancelled=flag_of_wait(cancelled),
        )

    does = {
        "code": code,
        "language": language,
        "context": context.place_key if isinstance(context, CodeContext) else context,
        "env": env,
        "secrets": dict(secrets or {}),
    }
    cell = Once(plane, "cells", identify("run_code", does, step=step), on_trouble=run_logger().warning)
    with redactor.errors():
        try:
            result, _ = cell.run(execute, CodeResult.model_dump_json, CodeResult.model_validate_json)
        finally:
            log.close()
    result = redactor.data(result)
    if artifacts:
        show_results(result)
    if result.error is None:
        return result
    run_logger().warning("The code %s", result.error.ending[:LONGEST_LOGGED])
    if check:
        raise CodeFailedError(f"The code {result.error.ending}", result=result)
    return result


@sandbox_task("create context", "language")
def create_code_context(
    instance: Instance | str,
    language: str = "python",
    cwd: str | None = None,
    step: str = "",
    config: AGSConfig | str | None = None,
) -> CodeContext:
    """Create a context of the code interpreter: its variables are not visible in other contexts.

    A retry of the task or of the flow run gets the context that an earlier attempt made in the same sandbox.

    Args:
        instance: The instance or its id.
        language: `python`, `javascript`, `typescript`, `bash`, `r` or `java`.
        cwd: Working directory, by default the user's home.
        step: Distinguishes identical calls in one flow run whose order may change between attempts.
        config: Where AGS is, or the name of a saved block; by default the environment.

    Raises:
        InvalidRequestError: The working directory does not exist.
        UnsupportedError: The tool has no code interpreter, or not this language.

    Example:
        ```python
        context = create_code_context(instance, cwd="/tmp")
        assert run_code(instance, "import os; os.getcwd()", context=context).text == "/tmp"
        ```
    """
    plane = open_plane(resolve_config(config).connection(), instance_id(instance)).plane
    made = identify("create_code_context", {"language": language, "cwd": cwd}, step=step)
    # A context that an earlier attempt made and did not record is of no use to anything: another one is made.
    context, claimed = Once(plane, "contexts", made, repeatable=True).run(
        lambda: CodeInterpreter(plane).create_context(language, cwd and existing_directory(plane, cwd)),
        CodeContext.model_dump_json,
        CodeContext.model_validate_json,
    )
    return context.model_copy(update={"key": claimed.directory.rpartition("/")[2]})


@sandbox_task("list contexts", "instance")
def list_code_contexts(instance: Instance | str, config: AGSConfig | str | None = None) -> list[CodeContext]:
    """Return the contexts of a sandbox's code interpreter, the default ones of languages too.

    Example:
        ```python
        print([context.language for context in list_code_contexts(instance)])
        ```
    """
    return _interpreter(instance, config).list_contexts()


@sandbox_task("restart context", "context")
def restart_code_context(
    instance: Instance | str, context: CodeContext | str, config: AGSConfig | str | None = None
) -> None:
    """Forget all variables of a context.

    Raises:
        NotFoundError: There is no such context.

    Example:
        ```python
        context = create_code_context(instance)
        run_code(instance, "x = 1", context=context)
        restart_code_context(instance, context)
        assert run_code(instance, "x", context=context).error.name == "NameError"
        ```
    """
    interpreter, name = _interpreter(instance, config), context if isinstance(context, str) else context.id
    step = identify("restart_code_context", name)
    change_once(interpreter.plane, step, lambda: interpreter.restart_context(name), lambda _: "done", lambda _: None)


@sandbox_task("remove context", "context")
def remove_code_context(
    instance: Instance | str, context: CodeContext | str, config: AGSConfig | str | None = None
) -> None:
    """End a context.

    Raises:
        NotFoundError: There is no such context.

    Example:
        ```python
        remove_code_context(instance, create_code_context(instance))
        ```
    """
    interpreter, name = _interpreter(instance, config), context if isinstance(context, str) else context.id
    step = identify("remove_code_context", name)
    change_once(interpreter.plane, step, lambda: interpreter.remove_context(name), lambda _: "done", lambda _: None)


def _language_of(language: str | None, context: CodeContext | str | None) -> str:
    """Return the language of a cell.

    Raises:
        ConfigurationError: The context has another one.
    """
    if not isinstance(context, CodeContext):
        return language or "python"
    if language not in (None, context.language):
        raise ConfigurationError(
            f"language is {language!r}, and the context is for {context.language!r}.",
            hint="Leave out language, or give a context for it.",
        )
    return context.language


def _interpreter(instance: Instance | str, config: AGSConfig | str | None) -> CodeInterpreter:
    return CodeInterpreter(open_plane(resolve_config(config).connection(), instance_id(instance)).plane)
