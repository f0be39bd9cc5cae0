"""Files of a result, to this machine. What comes out of a sandbox is not trusted: nothing is written out of `files`.

The paths of all files are checked before the first one is downloaded. A link may be made later, by a directory that is
downloaded: so each directory on the way to a file is looked at again when the file is written.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from ags_flows import transfer
from ags_flows.blocks import AGSConfig
from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.data_planes import open_plane
from ags_flows.cloud.retry import persistently
from ags_flows.errors import FunctionError, NotFoundError
from ags_flows.functions.values import SandboxFile
from ags_flows.models import Instance
from ags_flows.run.logs import ProgressLog
from ags_flows.tasks.files import logged
from ags_flows.transfer.local_errors import local_errors
from ags_flows.transfer.local_targets import settled


@dataclass(frozen=True)
class Destination:
    """Where the files of one call are on this machine.

    Attributes:
        called: Name of the function.
        directory: The directory `files` of the function.
        own: The directory in it of files for which the function gives no path: calls do not overwrite each other's.
    """

    called: str
    directory: Path
    own: str

    def refusal(self, message: str, hint: str, error_type: str = "NotJSON") -> FunctionError:
        """Return the error for a file that is not downloaded."""
        return FunctionError(
            f"{self.called}: {message}.",
            function=self.called,
            error_type=error_type,
            error_message=message,
            hint=f"{hint}.",
        )

    def place(self, file: SandboxFile) -> Path:
        """Return the path of a file, without links in the directories on the way to it.

        Raises:
            FunctionError: It leads out of the directory.
        """
        name = PurePosixPath(file.path).name if file.to is None else file.to
        root = os.path.realpath(self.directory)
        path = Path(root, self.own if file.to is None else "", name)
        is_safe = name and "\0" not in name and ".." not in PurePath(name).parts and not PurePath(name).is_absolute()
        if not is_safe or not (real := settled(path)).is_relative_to(root):
            raise self.refusal(
                f"SandboxFile(to={file.to!r}) leads out of the directory {str(self.directory)!r}", "Set files=..."
            )
        return real

    def places(self, files: Iterable[SandboxFile]) -> dict[SandboxFile, Path]:
        """Return the paths of the files of a result.

        Raises:
            FunctionError: One leads out of the directory, or two files would have the same path, or one in the other.
        """
        found = {file: self.place(file) for file in files}
        taken: dict[Path, SandboxFile] = {}
        for file, path in found.items():
            other = taken.setdefault(path, file)
            if other != file:
                message = f"the files {other.path!r} and {file.path!r} have the same name {path.name!r}"
                raise self.refusal(message, "Set to=...")
        for file, path in found.items():
            around = next((taken[one] for one in path.parents if one in taken), None)
            if around is not None:
                message = f"the path of the file {file.path!r} is inside of that of {around.path!r}"
                raise self.refusal(message, "Set another to=...")
        return found

    def must_fit(self, file: SandboxFile, path: Path, is_directory: bool) -> None:
        """Refuse a path at which there is something of another kind.

        Raises:
            FunctionError: A file is there for a directory, or the other way round; or on the way to it.
        """
        there = next(one for one in (path, *path.parents) if os.path.exists(one))
        if os.path.isdir(there) != (is_directory or there != path):
            kind = "directory" if os.path.isdir(there) else "file"
            message = f"the path {str(there)!r} of {file!r} is a {kind} on this machine"
            raise self.refusal(message, f"Set another to=..., or remove the {kind}", "FileExistsError")

    def make_parents(self, path: Path) -> None:
        """Make the directories on the way to a path that has no links, and none to something else now.

        Raises:
            FunctionError: One of them is a link by now, or a file.
        """
        root = Path(os.path.realpath(self.directory))
        root.mkdir(parents=True, exist_ok=True)
        for directory in [*reversed(path.relative_to(root).parents)][1:]:
            # Neither call follows a link.
            with suppress(FileExistsError):
                os.mkdir(root / directory)
            if not stat.S_ISDIR(os.lstat(root / directory).st_mode):
                message = f"the path {str(path)!r} leads through {str(directory)!r}, which is a link or a file by now"
                raise self.refusal(message, "Set another to=...", "FileExistsError")


def fetch_files(
    files: Iterable[SandboxFile], destination: Destination, instance: Instance, config: AGSConfig
) -> dict[SandboxFile, SandboxFile]:
    """Download the files of a result; return each with where it is on this machine.

    Raises:
        FunctionError: One does not exist, or its path is refused.
    """
    places = destination.places(files)
    plane = open_plane(config.connection(), instance.id).plane
    kinds: dict[SandboxFile, bool] = {}
    for file, path in places.items():
        try:
            kinds[file] = persistently(lambda: plane.stat(file.path)).type == "dir"  # noqa: B023 - called here
        except NotFoundError:
            raise _missing(destination, file) from None
        destination.must_fit(file, path, kinds[file])
    for file, path in places.items():
        with local_errors(path, "cannot be written"):
            destination.make_parents(path)
        try:
            _download(plane, file.path, path, kinds[file])
        except NotFoundError:
            raise _missing(destination, file) from None
    return {file: SandboxFile(str(path)) for file, path in places.items()}


def _download(plane: DataPlane, remote: str, local: Path, is_directory: bool) -> None:
    move = transfer.download_directory if is_directory else transfer.download_file
    # No directory on the way is a link, and nothing that is downloaded replaces a directory by a link.
    logged(move(plane, remote, local, progress=ProgressLog(f"download of {remote}"), exact=True))


def _missing(destination: Destination, file: SandboxFile) -> FunctionError:
    message = f"the returned file {file.path!r} does not exist"
    return destination.refusal(message, "Return a file that was written", "FileNotFoundError")
