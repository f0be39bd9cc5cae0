"""One call of a function in one sandbox: arguments in, a durable command, result or error out."""

from __future__ import annotations

import inspect
import json
import shlex
from asyncio import CancelledError
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import Parameter
from pathlib import Path
from typing import Any

from ags_flows import transfer
from ags_flows.blocks import AGSConfig, resolve_config
from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.data_planes import open_plane
from ags_flows.cloud.retry import persistently
from ags_flows.cloud.tracing import request_span
from ags_flows.durable.command import Command, DurableCommand, Following
from ags_flows.errors import (
    AGSFlowsError,
    CommandTimeoutError,
    ConfigurationError,
    FunctionError,
    OutputTooLargeError,
    UnsupportedError,
)
from ags_flows.functions import guest, runner, values
from ags_flows.functions.files import Destination
from ags_flows.functions.included import Included, digest_of, included
from ags_flows.functions.packages import install, packages_key, packages_path
from ags_flows.functions.result import MOST, Report, adapter_of, fetched, masked, value_of
from ags_flows.functions.source import Source, source_of
from ags_flows.functions.values import KIND, NotJSONError, encode
from ags_flows.models import Instance
from ags_flows.models.checks import check_environment, check_seconds
from ags_flows.models.rules import one_of
from ags_flows.ownership import Step, digest, fingerprint
from ags_flows.run.awaitable import flag_of_wait
from ags_flows.run.holder import identify
from ags_flows.run.logs import OutputLog, run_logger
from ags_flows.run.redaction import Redactor
from ags_flows.run.secrets import load_secrets
from ags_flows.run.task_options import sandbox_task

INLINE = 60_000
"""Characters of a call that go with the command. A longer one is sent as its input."""

FORGOTTEN = (FunctionError, CommandTimeoutError, OutputTooLargeError, UnsupportedError, CancelledError, TimeoutError)
"""Errors after which a call is made again by a later attempt. The last two are time limits of Prefect's."""

LINGER = 2.0
"""Seconds that the start of a call waits for its end: concurrent calls take longer than one alone."""

FILES = ".ags_flows/files"
RESULTS = ".ags_flows/results"
KEPT_OUTPUT = 1 << 16
LONGEST_TITLE = 200

# Every Python knows its syntax: one that is too old for the rest is named.
_BOOT = f"""\
import sys
if sys.version_info[:2] < {guest.OLDEST}:
    version = ".".join(str(part) for part in sys.version_info[:3])
    print("\\n" + sys.argv[2] + '{{"kind": "version", "version": "' + version + '"}}')
    sys.exit(1)
exec(compile(sys.argv.pop(1), "<runner>", "exec"))
"""
_RUNNER, *_GUEST = (inspect.getsource(one) for one in (runner, values, guest))


@dataclass(frozen=True)
class FunctionOptions:
    """What a function has around it in a sandbox.

    Attributes:
        packages: Requirements that pip installs, such as `pandas==2.2.3`.
        include: Local code that the function imports: paths relative to its file, or names of packages.
        env: Environment.
        secrets: Environment from Prefect Secret blocks: variable name to name of the block.
        timeout: Seconds for one call. None: no limit.
        files: Directory on this machine for the files that the function returns.
    """

    packages: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
    files: str = "."


@dataclass(frozen=True)
class RemoteFunction:
    """A function that can run in a sandbox: its source, and what it has around it.

    Attributes:
        function: The function.
        source: Its source.
        options: What it has around it.
    """

    function: Callable[..., Any]
    source: Source
    options: FunctionOptions = FunctionOptions()

    @classmethod
    def of(cls, function: Callable[..., Any], options: FunctionOptions = FunctionOptions()) -> RemoteFunction:
        """Read a function.

        Raises:
            ConfigurationError: It cannot run in a sandbox, or an option breaks a rule.
        """
        check_seconds(options.timeout)
        check_environment(options.env)
        return cls(function, source_of(function), options)

    @property
    def name(self) -> str:
        """The function's name."""
        return self.source.name

    @property
    def place_key(self) -> str:
        """What stands for it in steps."""
        return fingerprint([self.source.name, self.source.text, self.source.postponed])

    def included(self) -> Included:
        """Return the local code that it imports, as it is now."""
        return included(self.options.include, Path(self.source.file).parent)


@dataclass(frozen=True)
class Call:
    """A function with its arguments as JSON.

    Attributes:
        remote: The function.
        args: Positional arguments as JSON, with the paths of files in the sandbox.
        kwargs: The others.
        uploads: Path in the sandbox to path on this machine.
        included: Local code that the function imports.
        defaults: Of a function that calls itself: defaults of its parameters, as JSON.
        kwdefaults: Those of parameters by keyword alone.
    """

    remote: RemoteFunction
    args: Any
    kwargs: Any
    uploads: Mapping[str, str]
    included: Included
    defaults: Any = ()
    kwdefaults: Any = field(default_factory=dict)

    @classmethod
    def of(cls, remote: RemoteFunction, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """Check the arguments.

        Raises:
            TypeError: They do not fit the function's signature.
            ConfigurationError: One is not JSON, or a file does not exist; the message has its path.
        """
        # Before anything starts.
        adapter_of(remote.function)
        signature = remote.source.signature
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        uploads: dict[str, str] = {}
        own = signature.parameters.values() if remote.source.is_recursive else ()
        values = {one.name: one.default for one in own if one.default is not Parameter.empty}
        try:
            encoded = {name: _sent(encode(value, name), name, uploads) for name, value in bound.arguments.items()}
            defaults = {name: _sent(encode(value, name), name, uploads) for name, value in values.items()}
            size = len(json.dumps([encoded, defaults]))
        except (NotJSONError, ValueError, RecursionError) as error:
            raise ConfigurationError(
                f"{remote.name}: an argument cannot be sent: {error}.",
                hint="Pass JSON, dataclasses, pydantic models, datetimes, bytes, or SandboxFile for files.",
            ) from None
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"{remote.name}: an argument cannot be sent: {error}.",
                hint="Pass the path of a file or a directory of this machine to SandboxFile.",
            ) from None
        if size > MOST:
            raise ConfigurationError(
                f"{remote.name}: the arguments are {size:,} bytes as JSON, more than {MOST:,}.",
                hint="Write them to a file and pass SandboxFile(path).",
            )
        for name, value in encoded.items():
            is_rest = signature.parameters[name].kind is Parameter.VAR_POSITIONAL
            bound.arguments[name] = tuple(value["value"]) if is_rest else value
        by_name = {name for name in defaults if signature.parameters[name].kind is Parameter.KEYWORD_ONLY}
        return cls(
            remote,
            list(bound.args),
            dict(bound.kwargs),
            uploads,
            remote.included(),
            [value for name, value in defaults.items() if name not in by_name],
            {name: value for name, value in defaults.items() if name in by_name},
        )

    @property
    def title(self) -> str:
        """The call as a reader sees it, in one line."""
        shown = [json.dumps(one, ensure_ascii=False) for one in self.args]
        shown += [f"{name}={json.dumps(one, ensure_ascii=False)}" for name, one in self.kwargs.items()]
        text = " ".join(f"{self.remote.name}({', '.join(shown)})".split())
        return text if len(text) <= LONGEST_TITLE else f"{text[: LONGEST_TITLE - 4]}...)"

    def does(self) -> dict[str, Any]:
        """Return what the call does, for its step."""
        options = self.remote.options
        return {
            "function": self.remote.place_key,
            "args": fingerprint([self.args, self.kwargs, self.defaults, self.kwdefaults]),
            "packages": packages_key(options.packages),
            "include": self.included.key,
            "env": dict(options.env),
            "secrets": dict(options.secrets),
        }


@sandbox_task("call", "function", function=one_of(RemoteFunction))
def call_function(
    instance: Instance,
    function: RemoteFunction,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    config: AGSConfig | str | None = None,
) -> Any:
    """Call a function in a running sandbox, and return its result. `sandbox.call` is this as a method.

    Args:
        instance: The sandbox.
        function: The function.
        args: Positional arguments.
        kwargs: The others.
        config: Where AGS is, or the name of a saved block; by default the environment.

    Raises:
        FunctionError: The function raised an exception.
        ConfigurationError: An argument is not JSON, or packages cannot be installed.
        CommandTimeoutError: The time limit was reached.

    Example:
        ```python
        def double(number):
            return 2 * number


        assert call_function(instance, RemoteFunction.of(double), (21,)) == 42
        ```
    """
    config = resolve_config(config)
    call = Call.of(function, args, kwargs or {})
    step = identify("call_function", call.does())
    plane = open_plane(config.connection(), instance.id).plane
    install_packages(function, instance, config)
    call.included.upload(plane)
    return perform(call, instance, step, config)


def install_packages(remote: RemoteFunction, instance: Instance, config: AGSConfig) -> bool:
    """Install the packages of a function in a sandbox; return whether it did not have them."""
    options = remote.options
    if not options.packages:
        return False
    plane = open_plane(config.connection(), instance.id).plane
    return install(plane, instance, options.packages, env=options.env, secrets=options.secrets, config=config)


def perform(call: Call, instance: Instance, step: Step, config: AGSConfig) -> Any:
    """Call a function in a sandbox that has what it needs, and return its result. See `call_function`.

    The command is started once for the step: a later attempt attaches to it, and reads its result. One that failed is
    forgotten: a later attempt calls the function again.
    """
    remote, options = call.remote, call.remote.options
    plane, cancelled = open_plane(config.connection(), instance.id)
    for target, local in call.uploads.items():
        # By content, and not as a step: a call that is made again needs its files again.
        send = transfer.upload_directory if Path(local).is_dir() else transfer.upload_file
        send(plane, Path(local), target)
    hidden = load_secrets(options.secrets)
    redactor = Redactor(hidden.values())
    mark = f"@ags-function-{step.family} "
    text, stdin = _command(call, mark, step)
    env = {**check_environment(options.env), **hidden}
    command = Command(
        text,
        env=env,
        stdin=stdin,
        timeout=options.timeout,
        linger=LINGER,
        title=redactor.text(call.title),
        more_time="Give it more time with timeout=...",
        # Calls with the same environment, also with the same values of secrets, share one.
        runner="" if stdin else digest(_BOOT, _RUNNER, *_GUEST, fingerprint(env)),
    )
    log = OutputLog(run_logger(), redactor)
    report = Report(mark, log)
    durable = DurableCommand(
        plane,
        command,
        Following(
            report, lambda note: run_logger().info("%s", redactor.text(note)), flag_of_wait(cancelled), KEPT_OUTPUT
        ),
    )
    try:
        with redactor.errors(), request_span("ags.call", instance=instance.id, function=remote.name):
            try:
                result = durable.start(step).wait()
                found = report.read(lambda path: persistently(lambda: plane.read(path)))
                value = masked(value_of(remote.source, found, result), redactor)
            except FORGOTTEN:
                _forget(durable, plane)
                raise
            try:
                destination = Destination(remote.name, Path(options.files), f"{remote.name}-{step.holder.call}")
                return fetched(remote.function, destination, value, instance, config)
            except FunctionError:
                # A result that does not fit is a failure of the function, and not its result.
                _forget(durable, plane)
                raise
    finally:
        log.close()


def result_path(step: Step) -> str:
    """Return where in the sandbox a call writes a result that is too long for its output."""
    return f"~/{RESULTS}/{step.family}-{step.holder.call}"


def _command(call: Call, mark: str, step: Step) -> tuple[str, bytes | None]:
    """Return the command of a call, and its input."""
    source = call.remote.source
    packages, code = call.remote.options.packages, call.included
    paths = [f"~/{code.remote}"] if code.key else []
    paths += [f"~/{packages_path(packages_key(packages))}"] if packages else []
    sent = json.dumps(
        {
            "name": source.name,
            "file": source.file,
            "line": source.line,
            "source": source.text,
            "postponed": source.postponed,
            "args": call.args,
            "kwargs": call.kwargs,
            "defaults": call.defaults,
            "kwdefaults": call.kwdefaults,
            "paths": paths,
            "mark": mark,
            "result": result_path(step),
            "limit": MOST,
        }
    )
    # JSON has escapes for what is not ASCII: a character is a byte.
    inline = len(sent) <= INLINE
    no_python = shlex.quote(mark + json.dumps({"kind": "no python"}))
    lines = [
        f"# {call.title}",
        f"AGS_CALL={shlex.quote(sent) if inline else '-'}",
        f"AGS_PYTHON=$(command -v python3 || command -v python) || {{ printf '\\n%s\\n' {no_python}; exit 127; }}",
        f'exec "$AGS_PYTHON" -u -c {shlex.quote(_BOOT)} {" ".join(map(shlex.quote, (_RUNNER, mark, *_GUEST)))} '
        '"$AGS_CALL" "$AGS_FLOWS_RUNNER"',
    ]
    return "\n".join(lines), None if inline else sent.encode()


def _sent(encoded: Any, path: str, uploads: dict[str, str]) -> Any:
    """Return the JSON form of an argument in which files have their paths in the sandbox, and note what is uploaded."""
    if isinstance(encoded, list):
        return [_sent(one, f"{path}[{at}]", uploads) for at, one in enumerate(encoded)]
    if not isinstance(encoded, dict):
        return encoded
    if encoded.get(KIND) == "dict":
        # A mapping of the caller that looks like an encoded value: only its values are encoded.
        return {**encoded, "value": {name: _sent(one, path, uploads) for name, one in encoded["value"].items()}}
    if encoded.get(KIND) != "file":
        return {name: _sent(one, path, uploads) for name, one in encoded.items()}
    local = Path(encoded["value"][0])
    if not local.exists():
        raise FileNotFoundError(f"{path}: there is no file {str(local)!r} on this machine")
    # Equal calls have equal contents.
    target = f"{FILES}/{digest_of(local)}/{local.name}"
    uploads[target] = str(local)
    return {KIND: "file", "value": [f"~/{target}", encoded["value"][1]]}


def _forget(durable: DurableCommand, plane: DataPlane) -> None:
    """Remove the journal of a call that failed: a later attempt calls the function again."""
    try:
        if durable.directory:
            persistently(lambda: plane.remove(durable.directory))
    except AGSFlowsError as error:
        run_logger().debug("The journal %s of a failed call could not be removed: %s", durable.journal, error)
