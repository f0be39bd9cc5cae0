"""Sandbox objects of the e2b SDK, and commands, code and files in them."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from ags_flows.cloud.code_interpreter import CodeInterpreter, check_language
from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.data_planes import Cancellation, OpenPlane, open_plane
from ags_flows.cloud.retry import persistently
from ags_flows.durable.command import Command, DurableCommand, Following
from ags_flows.errors import CredentialsError
from ags_flows.models import AccessToken, Transfer
from ags_flows.models.checks import check_seconds
from ags_flows.models.durations import check_duration
from ags_flows.run.checked import checked
from ags_flows.run.holder import Execution
from ags_flows.runtime.background import BackgroundCommand
from ags_flows.runtime.instances import Instances
from ags_flows.runtime.plain import check_sandbox
from ags_flows.transfer import download_directory, download_file, upload_directory, upload_file

Tell = Callable[[str], object]

MOST_KEPT = 64 << 20
"""Bytes of each stream that a result holds: enough for users, and little enough for the memory."""

CODE_TIMEOUT = 300.0

_POSITIVE = functools.partial(check_seconds, positive=True)


def _language(value: Any, field: str) -> str:
    """Return the name of a language, also from its short name."""
    if isinstance(value, str):
        value = {"js": "javascript", "ts": "typescript"}.get(value.lower(), value.lower())
    language: str = check_language(value, field)
    return language


class Sandboxes(Instances):
    """The part of `AGSRuntime` that is about sandboxes of the e2b SDK."""

    @checked(timeout=check_duration)
    def create_e2b_sandbox(self, tool_name: str, timeout: int = 600, api_key: str | None = None) -> Any:
        """Start a sandbox and return it as an `e2b_code_interpreter.Sandbox`, which is an `e2b.Sandbox`.

        With keys of Tencent Cloud no E2B API key is needed: `kill()`, `set_timeout()` and `pause()` go to AGS. With
        `api_key` every method of the SDK works. Neither is written to the environment of the process.

        Args:
            tool_name: A tool's name or id.
            timeout: Seconds, 30 to 86,400; the sandbox ends then.
            api_key: An E2B API key of AGS (`ark_...`).

        Raises:
            CredentialsError: There are neither keys of Tencent Cloud nor an API key.
            NotFoundError: There is no such tool.

        Example:
            ```python
            from ags_flows import AGSRuntime

            sandbox = AGSRuntime().create_e2b_sandbox("code-interpreter-v1")
            print(sandbox.commands.run("echo hello").stdout)
            print(sandbox.run_code("1 + 1").text)
            sandbox.kill()
            ```
        """
        from ags_flows.cloud import live_sandbox

        connection = self.connection
        if not self._has_keys():
            api_key = api_key or self._api_key()
            return live_sandbox.create_with_key(
                connection, tool_name, api_key=api_key, timeout=timeout, idempotency=str(uuid.uuid4())
            )
        instance_id = self._start(tool_name, timeout)
        try:
            if api_key:
                return live_sandbox.connect_with_key(connection, instance_id, api_key=api_key, timeout=timeout)
            plane = open_plane(connection, instance_id).plane
            return live_sandbox.KeylessSandbox.of(plane, ControlPlane.of(connection))
        except BaseException:
            self.stop_instance(instance_id)
            raise

    @checked(timeout=_POSITIVE, sandbox=check_sandbox)
    def execute_command_in_sandbox(
        self,
        sandbox: Any,
        command: str,
        user: str = "root",
        background: bool = False,
        timeout: float | None = None,
        on_stdout: Tell | None = None,
        on_stderr: Tell | None = None,
    ) -> Any:
        """Run a shell command in a sandbox. It survives a lost connection, and is never run twice.

        Args:
            sandbox: An e2b sandbox.
            command: Run by `bash -l -c`.
            user: `root` or `user`.
            background: Return immediately.
            timeout: Seconds, then the command and all that it started is killed; None for no limit.
            on_stdout: Called with each line of output as it arrives, with its end.
            on_stderr: The same for stderr.

        Returns:
            An `e2b.CommandResult` with `stdout`, `stderr`, `exit_code`; in the background a `BackgroundCommand`, whose
            `wait()` returns that.

        Raises:
            CommandExitException: Of e2b, for an exit code other than 0; it has `stdout`, `stderr`, `exit_code` too.
            CommandTimeoutError: The time limit was reached.

        Example:
            ```python
            from ags_flows import AGSRuntime

            runtime = AGSRuntime()
            sandbox = runtime.create_e2b_sandbox("code-interpreter-v1")
            server = runtime.execute_command_in_sandbox(sandbox, "python3 -m http.server 8000", background=True)
            print(runtime.execute_command_in_sandbox(sandbox, "id -un").stdout)
            server.kill()
            sandbox.kill()
            ```
        """
        from ags_flows.cloud import live_sandbox

        plane, cancelled = self._plane(sandbox)

        def tell(stream: str, line: str) -> None:
            listener = on_stdout if stream == "stdout" else on_stderr
            if listener is not None:
                listener(f"{line}\n")

        listener = tell if on_stdout or on_stderr else None
        what = Command(command, user, timeout=timeout)
        running = DurableCommand(plane, what, Following(listener, cancelled=cancelled, limit=MOST_KEPT))
        # Outside of any run: each call is a step that no other call has.
        running.start(Execution().step("execute_command", what.does()))

        def follow() -> Any:
            return live_sandbox.command_result(running.wait())

        return BackgroundCommand(follow, running.kill, command) if background else follow()

    @checked(timeout=_POSITIVE, sandbox=check_sandbox, language=_language)
    def execute_code_in_sandbox(
        self,
        sandbox: Any,
        code: str,
        language: str = "python",
        on_stdout: Callable[[Any], object] | None = None,
        on_stderr: Callable[[Any], object] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Run code in the code interpreter of a sandbox. Variables are kept between calls.

        Args:
            sandbox: A sandbox of a tool of type `code-interpreter`.
            code: The code.
            language: `python`, `javascript` or `js`, `typescript` or `ts`, `java`, `r`, `bash`; in any case.
            on_stdout: Called with each message of the SDK (`.line`) as it arrives.
            on_stderr: The same for stderr.
            timeout: Seconds, by default 300.

        Returns:
            An `Execution` of the SDK with `text`, `results`, `logs` and `error`; an exception of the code is a value.

        Raises:
            UnsupportedError: The tool has no code interpreter: upload the code, and execute it as a command.
            CodeTimeoutError: The time limit was reached.

        Example:
            ```python
            from ags_flows import AGSRuntime

            runtime = AGSRuntime()
            sandbox = runtime.create_e2b_sandbox("code-interpreter-v1")
            runtime.execute_code_in_sandbox(sandbox, "x = 20")
            print(runtime.execute_code_in_sandbox(sandbox, "x + 1").text)
            sandbox.kill()
            ```
        """
        return CodeInterpreter(self._plane(sandbox).plane).execute(
            code, language=language, on_stdout=on_stdout, on_stderr=on_stderr, timeout=timeout or CODE_TIMEOUT
        )

    @checked(sandbox=check_sandbox)
    def upload_file_to_sandbox(
        self, sandbox: Any, local_path: str | Path, remote_path: str, user: str = "root"
    ) -> Transfer:
        """Copy a file, or a directory with all that is in it, into a sandbox: byte by byte, whole or not at all.

        Args:
            sandbox: An e2b sandbox.
            local_path: The file or directory.
            remote_path: Where to; a path that ends with `/` is a directory to put the file in.
            user: Its owner in the sandbox.

        Raises:
            TransferError: It cannot be read.

        Example:
            ```python
            from pathlib import Path

            from ags_flows import AGSRuntime

            runtime = AGSRuntime()
            sandbox = runtime.create_e2b_sandbox("code-interpreter-v1")
            Path("numbers.bin").write_bytes(bytes(range(256)))
            runtime.upload_file_to_sandbox(sandbox, "numbers.bin", "/data/")
            runtime.download_file_from_sandbox(sandbox, "/data/numbers.bin", "copy.bin")
            assert Path("copy.bin").read_bytes() == bytes(range(256))
            sandbox.kill()
            ```
        """
        local, plane = Path(local_path), self._plane(sandbox).plane
        move = upload_directory if local.is_dir() else upload_file
        return persistently(lambda: move(plane, local, remote_path, user=user))

    @checked(sandbox=check_sandbox)
    def download_file_from_sandbox(
        self, sandbox: Any, remote_path: str, local_path: str | Path, user: str = "root"
    ) -> Transfer:
        """Copy a file of a sandbox, or a directory with all that is in it, to this machine.

        Raises:
            NotFoundError: There is nothing at `remote_path`.

        Example:
            ```python
            from ags_flows import AGSRuntime

            runtime = AGSRuntime()
            sandbox = runtime.create_e2b_sandbox("base")
            sandbox.files.write("/home/user/report.csv", "a,b")
            runtime.download_file_from_sandbox(sandbox, "/home/user/report.csv", "report.csv")
            sandbox.kill()
            ```
        """
        local, plane = Path(local_path), self._plane(sandbox).plane
        move = download_directory if plane.stat(remote_path, user=user).type == "dir" else download_file
        return persistently(lambda: move(plane, remote_path, local, user=user))

    def _api_key(self) -> str:
        try:
            return self.config.credentials.require_e2b_key()
        except CredentialsError as error:
            raise CredentialsError(
                "There are neither Tencent Cloud credentials nor an E2B API key.",
                hint="Set TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY, or give api_key=...",
            ) from error

    def _has_keys(self) -> bool:
        try:
            ControlPlane.of(self.connection)
        except CredentialsError:
            return False
        return True

    def _plane(self, sandbox: Any) -> OpenPlane:
        from ags_flows.cloud.e2b_internals import token_of

        instance_id = str(sandbox.sandbox_id)
        if self._has_keys():
            return open_plane(self.connection, instance_id)
        token = AccessToken(instance_id=instance_id, token=SecretStr(token_of(sandbox)))
        return OpenPlane(DataPlane(self.connection, instance_id, lambda: token), Cancellation())
