"""Files and commands in one sandbox, over the e2b SDK attached by access token."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Generator, Mapping
from typing import IO, Any

from ags_flows.cloud.attachment import Attachment
from ags_flows.cloud.file_info import file_info
from ags_flows.cloud.head_and_tail import HeadAndTail
from ags_flows.cloud.home import at_home
from ags_flows.cloud.responses import INVALID
from ags_flows.errors import CommandTimeoutError, NotFoundError, OutputTooLargeError, ServiceError
from ags_flows.models import ExecResult, FileInfo

DEFAULT_LIMIT = 1 << 20
LARGEST_READ = 1 << 30
"""Bytes of a file that are taken into memory, unless another limit is given: a sandbox is not trusted."""

SANDBOX = "AGS_FLOWS_SANDBOX"
"""The variable with the id of the sandbox."""

SYSTEM_PATH = "PATH=${PATH:+$PATH:}/usr/local/bin:/usr/bin:/bin; "
"""Before scripts of this package: a tool's PATH may have none of the programs that they use."""


class DataPlane(Attachment):
    """One sandbox. Every call has a deadline. See `Attachment` for the arguments and the token."""

    def run(
        self,
        command: str,
        *,
        user: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 60.0,
        on_stdout: Callable[[str], object] | None = None,
        on_stderr: Callable[[str], object] | None = None,
        limit: int = DEFAULT_LIMIT,
        profile: bool = True,
    ) -> ExecResult:
        """Run a short command by bash and wait for it. Its output is lost when the connection is.

        Args:
            command: The command.
            user: `user` (default) or `root`.
            cwd: Working directory, by default the user's home.
            env: Environment.
            timeout: Seconds; then envd kills the command.
            on_stdout: Called with each piece of text as it arrives.
            on_stderr: The same for stderr.
            limit: How many bytes of each stream are kept: head and tail of longer output.
            profile: Whether bash is a login shell (`bash -l -c`). False for scripts of this package: see `script`. They
                also get the id of the sandbox, in the variable `SANDBOX`.

        Returns:
            The outcome; an exit code other than 0 is a value.

        Raises:
            CommandTimeoutError: The time limit was reached.
            UnreachableError: The connection was lost; the command may have run.
        """
        from e2b import CommandExitException
        from e2b.exceptions import TimeoutException

        from ags_flows.cloud.e2b_internals import without_profile, without_retention
        from ags_flows.cloud.sandbox_errors import exit_code_of, is_lost

        out, err = HeadAndTail(limit), HeadAndTail(limit)
        started = time.monotonic()

        def keep(where: HeadAndTail, tell: Callable[[str], object] | None) -> Callable[[str], None]:
            def take(text: str) -> None:
                where.add(text.encode())
                if tell is not None:
                    tell(text)

            return take

        def execute(sandbox: Any) -> int:
            commands = sandbox.commands if profile else without_profile(sandbox.commands)
            try:
                return int(
                    commands.run(
                        command if profile else SYSTEM_PATH + command,
                        envs=dict(env or {}) if profile else {SANDBOX: self.instance_id, **(env or {})},
                        user=user,
                        cwd=cwd,
                        timeout=timeout,
                        on_stdout=keep(out, on_stdout),
                        on_stderr=keep(err, on_stderr),
                        **without_retention(sandbox.commands.run),
                    ).exit_code
                )
            except CommandExitException as error:
                return exit_code_of(error.exit_code, error.error)
            except TimeoutException as error:
                # A gateway reports its time limit in the same way.
                if is_lost(error) or not timeout or time.monotonic() - started < 0.9 * timeout:
                    raise
                raise CommandTimeoutError(
                    f"Command ran into its limit of {timeout:g} s: {command}.",
                    hint="Give it more time with timeout=..., or run it durably.",
                    result=result(124),
                ) from None

        def result(code: int) -> ExecResult:
            return ExecResult(
                command=command,
                exit_code=code,
                stdout=out.text(),
                stderr=err.text(),
                stdout_size=out.size,
                stderr_size=err.size,
                truncated=out.truncated or err.truncated,
                seconds=time.monotonic() - started,
                instance_id=self.instance_id,
            )

        return result(self.call("run a command", execute))

    def script(
        self, text: str, *, user: str | None = None, env: Mapping[str, str] | None = None, timeout: float = 60.0
    ) -> ExecResult:
        """Run a script of this package: in the user's home, and by a bash that reads no profile.

        The script gets HOME and PATH of envd, and nothing that a profile prints, exports or changes.

        Args:
            text: The script.
            user: `user` (default) or `root`.
            env: Environment.
            timeout: Seconds; then envd kills the script.

        Raises:
            CommandTimeoutError: The time limit was reached.
            UnreachableError: The connection was lost; the script may have run.
        """
        return self.run(text, user=user, env=env, timeout=timeout, profile=False)

    def write(
        self,
        path: str,
        data: bytes | str | IO[bytes] | io.BufferedIOBase,
        *,
        user: str | None = None,
        timeout: float = 0,
    ) -> None:
        """Write a file, parents included. A stream is sent as it is read; rewind it before a second attempt.

        Args:
            path: Absolute, or relative to the user's home.
            data: Content.
            user: The file's owner.
            timeout: Seconds for the whole upload, 0 for the connection's `runtime_timeout`.
        """
        limit = timeout or self.connection.runtime_timeout

        def send(sandbox: Any) -> None:
            if isinstance(data, (bytes, str)):
                try:
                    sandbox.files.write(at_home(path), data, user=user, request_timeout=limit)
                except INVALID as error:
                    raise ServiceError(
                        f"write {path} in {self.instance_id}: the response is not one of a sandbox.",
                        hint="It is retried.",
                    ) from error
            else:
                data.seek(0)
                self._send(sandbox, path, data, user, limit)

        self.call(f"write {path}", send)

    def _send(self, sandbox: Any, path: str, data: Any, user: str | None, limit: float) -> None:
        from e2b.envd.api import handle_envd_api_exception

        from ags_flows.cloud.e2b_internals import post_file

        error = handle_envd_api_exception(post_file(sandbox, data, _file(path, user), limit))
        if error:
            raise error

    def read(self, path: str, *, user: str | None = None, limit: int = LARGEST_READ, timeout: float = 0) -> bytes:
        """Return a file's content. `timeout` is as in `write`.

        Raises:
            NotFoundError: There is no such file.
            OutputTooLargeError: It has more than `limit` bytes.
        """
        pieces, size = [], 0
        for piece in self.read_stream(path, user=user, timeout=timeout or self.connection.runtime_timeout):
            size += len(piece)
            if size > limit:
                raise OutputTooLargeError(
                    f"{path} has more than {limit:,} bytes.", hint="Download it, or read it with a higher limit=..."
                )
            pieces.append(piece)
        return b"".join(pieces)

    def read_stream(
        self, path: str, *, user: str | None = None, timeout: float | None = None
    ) -> Generator[bytes, None, None]:
        """Yield a file's content in pieces. A minute without one is an error, which is the SDK's own limit.

        Args:
            path: Absolute, or relative to the user's home.
            user: The user that reads it.
            timeout: Seconds for the whole file, None for no limit but that of a minute's silence.
        """
        stream = self.call(
            f"read {path}",
            lambda sandbox: sandbox.files.read(at_home(path), format="stream", user=user, request_timeout=timeout),
        )
        pieces = iter(stream)
        try:
            while True:
                piece = self._guard(f"read {path}", lambda: next(pieces, None))
                if piece is None:
                    return
                yield bytes(piece)
        finally:
            stream.close()

    def read_range(self, path: str, offset: int, size: int, *, user: str | None = None) -> bytes | None:
        """Return up to `size` bytes of a file from an offset, or None where the sandbox serves no ranges.

        The SDK has no method for it, but envd responds to `Range` requests with 206 and 416.
        """

        def get(sandbox: Any) -> bytes | None:
            from e2b.envd.api import handle_envd_api_exception

            from ags_flows.cloud.e2b_internals import get_range

            limit = self.connection.runtime_timeout
            with get_range(sandbox, offset, size, _file(path, user), limit) as answer:
                if answer.status_code == 416:
                    return b""
                if answer.status_code == 206:
                    return bytes(answer.read())
                if answer.status_code == 200:
                    return None
                answer.read()
                error = handle_envd_api_exception(answer)
                if error:
                    raise error
                return None

        return self.call(f"read {path}", get)

    def list(self, path: str, *, depth: int = 1, user: str | None = None) -> list[FileInfo]:
        """Return what is in a directory, down to `depth` levels."""
        entries = self.call(f"list {path}", lambda sandbox: sandbox.files.list(at_home(path), depth=depth, user=user))
        return [file_info(entry) for entry in entries]

    def stat(self, path: str, *, user: str | None = None) -> FileInfo:
        """Return what a path is.

        Raises:
            NotFoundError: There is nothing.
        """
        return file_info(self.call(f"stat {path}", lambda sandbox: sandbox.files.get_info(at_home(path), user=user)))

    def exists(self, path: str, *, user: str | None = None) -> bool:
        """Return True if there is something at a path."""
        return bool(self.call(f"stat {path}", lambda sandbox: sandbox.files.exists(at_home(path), user=user)))

    def make_dir(self, path: str, *, user: str | None = None) -> bool:
        """Make a directory with its parents; False when it was there already."""
        return bool(self.call(f"make {path}", lambda sandbox: sandbox.files.make_dir(at_home(path), user=user)))

    def move(self, source: str, target: str, *, user: str | None = None) -> None:
        """Move a file or a directory; an existing file is replaced atomically."""
        self.call(f"move {source}", lambda sandbox: sandbox.files.rename(at_home(source), at_home(target), user=user))

    def remove(self, path: str, *, user: str | None = None) -> None:
        """Remove a file, or a directory with all that is in it; nothing there is a success."""
        try:
            self.call(f"remove {path}", lambda sandbox: sandbox.files.remove(at_home(path), user=user))
        except NotFoundError:
            return


def _file(path: str, user: str | None) -> dict[str, str]:
    """Return the parameters of a request for a file."""
    return {"path": at_home(path), **({"username": user} if user else {})}
