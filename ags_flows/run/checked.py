"""Arguments of public functions, checked by their names before anything starts: one rule for each kind of value."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from ags_flows.blocks import AGSConfig, resolve_config
from ags_flows.cloud.code_interpreter import check_language
from ags_flows.errors import ConfigurationError
from ags_flows.models import (
    CodeContext,
    CommandHandle,
    Computer,
    CustomConfiguration,
    Instance,
    MountOption,
    Network,
    PrecachedImage,
    Snapshot,
    Tool,
    ToolSpec,
)
from ags_flows.models.checks import (
    check_command,
    check_content,
    check_context_id,
    check_count,
    check_environment,
    check_flag,
    check_instance_id,
    check_local,
    check_name,
    check_path,
    check_seconds,
    check_secrets,
    check_text,
    check_text_path,
    check_texts,
    check_tool,
    check_user,
)
from ags_flows.models.rules import Rule, check_callable, each, one_of
from ags_flows.ownership import RESERVED

P = ParamSpec("P")
R = TypeVar("R")


def _own_metadata(values: Any, field: str) -> Any:
    """Check the caller's metadata: names that this package sets are refused."""
    check_texts(values, field)
    if taken := sorted(RESERVED & values.keys()):
        raise ConfigurationError(
            f"{field}: {', '.join(map(repr, taken))} is set by this package.", hint="Choose another name."
        )
    return values


def _configuration(value: Any, field: str) -> AGSConfig:
    """Return the configuration that a block, or the name of a saved one, stands for."""
    return resolve_config(one_of(AGSConfig, text=check_name)(value, field))


RULES: Mapping[str, Rule] = {
    "api_key": check_name,
    "artifacts": check_flag,
    "auth_mode": check_name,
    "background": check_flag,
    "check": check_flag,
    "code": check_text,
    "command": check_command,
    "computer": one_of(Computer),
    "config": _configuration,
    "content": check_content,
    "context": one_of(CodeContext, text=check_context_id),
    "custom": one_of(CustomConfiguration),
    "cwd": check_text_path,
    "depth": functools.partial(check_count, least=1),
    "description": check_text,
    "drain": check_seconds,
    "durable": check_flag,
    "env": check_environment,
    "handle": one_of(CommandHandle),
    "image": one_of(PrecachedImage, text=check_name),
    "instance": one_of(Instance, text=check_instance_id),
    "instance_id": check_instance_id,
    "instance_ids": each(check_instance_id),
    "language": check_language,
    "limit": check_count,
    "local": check_local,
    "local_path": check_local,
    "log_output": check_flag,
    "memory": check_flag,
    "metadata": _own_metadata,
    "mount_options": each(one_of(MountOption)),
    "name": check_name,
    "network": one_of(Network),
    "offset": check_count,
    "on_stderr": check_callable,
    "on_stdout": check_callable,
    "path": check_text_path,
    "pattern": check_path,
    "port": functools.partial(check_count, least=1, most=65535),
    "registry_type": check_name,
    "remote": check_path,
    "remote_path": check_text_path,
    "replace": check_flag,
    "secrets": check_secrets,
    "snapshot": one_of(Snapshot, text=check_name),
    "snapshot_id": check_name,
    "source_instance_id": check_instance_id,
    "spec": one_of(ToolSpec),
    "status": check_name,
    "stdin": check_content,
    "step": check_text,
    "tags": check_texts,
    "timeout": check_seconds,
    "tool": one_of(Tool, text=check_tool),
    "tool_id": check_tool,
    "tool_ids": each(check_tool),
    "tool_name": check_tool,
    "tool_type": check_name,
    "type": check_name,
    "user": check_user,
    "wait": check_flag,
    "wait_for_active": check_flag,
}
"""The rule of each argument, by its name. A function whose argument of this name is of another kind has its own rule.

The rules do not apply to None: it is valid for arguments whose default is None or whose type has it.
"""


def check(**values: Any) -> None:
    """Check values by the rules of their names. None is skipped.

    Raises:
        ConfigurationError: A value breaks its rule.
    """
    for name, value in values.items():
        if value is not None:
            RULES[name](value, name)


def _ruled(rule: Rule, value: Any, name: str) -> Any:
    try:
        return rule(value, name)
    except ConfigurationError as error:
        if error.message.startswith(name):
            raise
        raise ConfigurationError(f"{name}: {error.message}", hint=error.hint) from None


def checked(**rules: Rule) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that checks the arguments of a function before the function is called.

    Args:
        **rules: Rules of this function, in addition to `RULES` and in place of them.

    Example:
        ```python
        @checked()
        def greet(user: str) -> str:
            return f"hello {user}"


        assert greet("root") == "hello root"
        ```
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        own = {name: rule for name, rule in {**RULES, **rules}.items() if name in signature.parameters}

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{function.__name__}() {error}") from None
            for name in [name for name in bound.arguments if name in own]:
                value, default = bound.arguments[name], signature.parameters[name].default
                if value is not None:
                    bound.arguments[name] = _ruled(own[name], value, name)
                elif default is not None and "None" not in str(signature.parameters[name].annotation):
                    rest = "." if default is inspect.Parameter.empty else ", or leave it out."
                    raise ConfigurationError(f"{name} must not be None.", hint=f"Give {name}{rest}")
            return function(*bound.args, **bound.kwargs)

        return call

    return decorate
