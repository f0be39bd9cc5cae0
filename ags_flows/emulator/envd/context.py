"""What the parts of one envd share: the sandbox, its users, its paths, its environment."""

from __future__ import annotations

import base64
import binascii
import errno
import os
import posixpath
from collections.abc import Mapping

from connectrpc.code import Code
from connectrpc.errors import ConnectError

from ags_flows.emulator.sandbox import Sandbox
from ags_flows.emulator.sandbox.tree import Tree


class Context:
    """One envd's sandbox and defaults.

    Attributes:
        env: Environment of every process, after PATH and HOME and before that of a call.
        default_user: The user of calls that name none.
        default_workdir: The working directory of commands that name none; empty for the user's home.
    """

    def __init__(self, sandbox: Sandbox, env: Mapping[str, str], default_user: str, default_workdir: str) -> None:
        self.sandbox = sandbox
        self.env = {"E2B_SANDBOX": "true", "E2B_SANDBOX_ID": sandbox.spec.sandbox_id, **env}
        self.default_user = default_user
        self.default_workdir = default_workdir

    @property
    def files(self) -> Tree:
        """The sandbox's files."""
        return self.sandbox.files

    def user_of(self, authorization: str | None) -> str:
        """Return the user that an Authorization header names (Basic, no password), or the default one.

        Raises:
            ConnectError: unauthenticated, for a user that is not there.
        """
        name = self.default_user
        if authorization and authorization.lower().startswith("basic "):
            try:
                named = base64.b64decode(authorization[6:]).decode().partition(":")[0]
            except (binascii.Error, UnicodeDecodeError):
                named = ""
            name = named or name
        return self.check_user(name)

    def check_user(self, name: str) -> str:
        """Return a user's name.

        Raises:
            ConnectError: unauthenticated, for a user that is not there.
        """
        if self.sandbox.home(name) is None:
            raise ConnectError(Code.UNAUTHENTICATED, f"invalid username: '{name}'")
        return name

    def resolve(self, path: str, user: str) -> str:
        """Return the absolute path that a user means: relative ones begin at the home, also those with `~`.

        Raises:
            ConnectError: invalid_argument, for the home of another user or a name that no path can have.
        """
        home = self.sandbox.home(user) or "/"
        if "\0" in path:
            raise ConnectError(Code.INVALID_ARGUMENT, "path contains a null byte")
        if not path:
            return self.default_workdir or home
        if path == "~" or path.startswith("~/"):
            return posixpath.normpath(home + path[1:])
        if path.startswith("~"):
            raise ConnectError(Code.INVALID_ARGUMENT, "cannot expand user-specific home dir")
        return posixpath.normpath(posixpath.join(home, path))

    def owner(self, user: str) -> tuple[int, int]:
        """Return the ids of what a user makes."""
        return self.sandbox.owner(user)


def refusal(error: OSError, what: str) -> ConnectError:
    """Return the RPC error for one of the file system."""
    codes = {
        errno.ENOENT: Code.NOT_FOUND,
        errno.EEXIST: Code.ALREADY_EXISTS,
        errno.ENOTDIR: Code.INVALID_ARGUMENT,
        errno.EISDIR: Code.INVALID_ARGUMENT,
        errno.EINVAL: Code.INVALID_ARGUMENT,
        errno.ENAMETOOLONG: Code.INVALID_ARGUMENT,
        errno.ELOOP: Code.INVALID_ARGUMENT,
        errno.EACCES: Code.PERMISSION_DENIED,
        errno.ESTALE: Code.UNAVAILABLE,
    }
    told = os.strerror(error.errno).lower() if error.errno else str(error)
    if error.errno == errno.ESTALE:
        told = "the sandbox was not found"
    return ConnectError(codes.get(error.errno or 0, Code.INTERNAL), f"{what}: {told}")
