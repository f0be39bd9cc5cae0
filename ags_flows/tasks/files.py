"""Tasks that move files into a sandbox, out of it, and within it."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Callable
from pathlib import Path

from ags_flows import transfer
from ags_flows.blocks import AGSConfig, resolve_config
from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.data_planes import open_plane
from ags_flows.durable.changes import change_once
from ags_flows.models import FileInfo, Instance, Transfer
from ags_flows.models.checks import check_text_path
from ags_flows.ownership import Step
from ags_flows.run.holder import identify, is_in_execution
from ags_flows.run.logs import ProgressLog, run_logger
from ags_flows.run.task_options import sandbox_task
from ags_flows.tasks.instances import instance_id
from ags_flows.transfer import Exclude, Links, check_exclude, check_links, is_own

DEFAULT_LIMIT = 64 << 20


def _plane(instance: Instance | str, config: AGSConfig | str | None) -> DataPlane:
    return open_plane(resolve_config(config).connection(), instance_id(instance)).plane


def _once(plane: DataPlane, step: Step, change: Callable[[], None]) -> None:
    """Make a change of the sandbox's files; a retry that finds it made does not make it again."""
    change_once(plane, step, change, lambda _: "done", lambda _: None)


def _sent_once(plane: DataPlane, step: Step, send: Callable[[], Transfer]) -> Transfer:
    """Send local files; a retry that finds them sent does not send them again, unless they have changed since."""
    return change_once(
        plane, step, send, lambda sent: sent.model_dump_json(exclude={"left_out"}), Transfer.model_validate_json
    )


def _state(local: Path, exclude: Exclude = (), links: Links = "keep") -> str:
    """Return what identifies the local files of a step. Outside of runs nothing is recorded, and nothing is read."""
    return transfer.local_state(local, exclude, links) if is_in_execution() else ""


def logged(moved: Transfer) -> Transfer:
    """Write what a transfer has moved, and left out, to the log of the run; return it."""
    told = [f"{moved.files:,} files"] if moved.files != 1 else []
    told.append(f"{moved.size:,} bytes" if moved.size < 100_000 else f"{moved.size / 1e6:,.1f} MB")
    if moved.unchanged and moved.unchanged == moved.files:
        told.append("unchanged: not sent again")
    elif moved.unchanged:
        told.append(f"{moved.unchanged:,} of them unchanged and not sent again")
    elif moved.size > 1e6:
        told.append(f"{moved.size / 1e6 / max(moved.seconds, 1e-3):,.0f} MB/s")
    run_logger().info("%s -> %s: %s", moved.source, moved.destination, ", ".join(told))
    if moved.left_out:
        names = ", ".join(moved.left_out)
        reason = "since devices, pipes, sockets and files of the kernel have no content of a certain size"
        run_logger().warning("%s: left out, %s: %s", moved.source, reason, names)
    return moved


@sandbox_task("upload", "local", remote=check_text_path)
def upload_file(
    instance: Instance | str,
    local: str | Path,
    remote: str,
    user: str | None = None,
    step: str = "",
    config: AGSConfig | str | None = None,
) -> Transfer:
    """Copy a local file into a sandbox, whole or not at all. Parent directories are made, the mode is kept.

    A file that the sandbox has already, with this content and mode, is not sent again.

    Args:
        instance: The instance or its id.
        local: A file on this machine.
        remote: Absolute path, or relative to the user's home.
        user: Its owner in the sandbox: `user` (default) or `root`.
        step: Your own name for the step. A retry sends the file again under another name.
        config: Where AGS is, or the name of a saved block; by default the environment.

    Raises:
        TransferError: The file cannot be read, its target is a directory, or it did not arrive whole.

    Example:
        ```python
        upload_file(instance, "etl.py", "bin/")  # becomes bin/etl.py
        ```
    """
    plane, path = _plane(instance, config), Path(local)

    def send() -> Transfer:
        return transfer.upload_file(plane, path, remote, user=user, progress=ProgressLog(f"upload of {local}"))

    does = [remote, user, _state(path)]
    return logged(_sent_once(plane, identify("upload_file", does, step=step), send))


@sandbox_task("upload", "local", exclude=check_exclude, links=check_links)
def upload_directory(
    instance: Instance | str,
    local: str | Path,
    remote: str,
    user: str | None = None,
    exclude: Exclude = (),
    links: Links = "keep",
    step: str = "",
    config: AGSConfig | str | None = None,
) -> Transfer:
    """Copy a local directory with all that is in it into a sandbox; modes, links and empty directories are kept.

    What is in `local` is in `remote` afterwards, beside what was there. Files that the sandbox has already, with their
    content and mode, are not sent again. A directory that is there keeps its mode and its owner. Devices, pipes and
    sockets are left out with a warning.

    Args:
        instance: The instance or its id.
        local: A directory on this machine, or a link to one.
        remote: Absolute path, or relative to the user's home. It is made with its parents.
        user: Its owner in the sandbox: `user` (default) or `root`.
        exclude: What is left out: patterns in the style of `.gitignore`, or the text of such a file.
        links: `keep` recreates links that lead outside of `local` as they are, `skip` leaves them out.
        step: Your own name for the step. A retry sends the directory again under another name.
        config: Where AGS is, or the name of a saved block; by default the environment.

    Raises:
        TransferError: It cannot be read, or a file stands in the sandbox where a directory should be, or the reverse.
            Nothing was written.

    Example:
        ```python
        moved = upload_directory(instance, "orders", "orders", exclude=["__pycache__/", "*.tmp"])
        print(moved.files, moved.size, moved.unchanged)
        ```
    """
    plane, path, progress = _plane(instance, config), Path(local), ProgressLog(f"upload of {local}")

    def send() -> Transfer:
        return transfer.upload_directory(
            plane, path, remote, exclude=exclude, links=links, user=user, progress=progress
        )

    does = [remote, user, _state(path, exclude, links)]
    return logged(_sent_once(plane, identify("upload_directory", does, step=step), send))


@sandbox_task("download", "remote", remote=check_text_path)
def download_file(
    instance: Instance | str,
    remote: str,
    local: str | Path,
    user: str | None = None,
    config: AGSConfig | str | None = None,
) -> Transfer:
    """Copy a file of a sandbox to this machine, whole or not at all. A `local` that ends with `/` is a directory.

    Raises:
        NotFoundError: There is no such file in the sandbox.
        TransferError: It did not arrive whole.

    Example:
        ```python
        write_file(instance, "report.csv", "a,b")
        download_file(instance, "report.csv", "results/report.csv")
        ```
    """
    target = Path(local, posixpath.basename(remote)) if str(local).endswith("/") else Path(local)
    return logged(
        transfer.download_file(
            _plane(instance, config), remote, target, user=user, progress=ProgressLog(f"download of {remote}")
        )
    )


@sandbox_task("download", "remote", exclude=check_exclude, links=check_links)
def download_directory(
    instance: Instance | str,
    remote: str,
    local: str | Path,
    user: str | None = None,
    exclude: Exclude = (),
    links: Links = "keep",
    config: AGSConfig | str | None = None,
) -> Transfer:
    """Copy a directory of a sandbox to this machine. Nothing can be written outside of `local`.

    Devices, pipes and sockets are left out with a warning.

    Args:
        instance: The instance or its id.
        remote: Absolute path, or relative to the user's home.
        local: The directory on this machine. It is made with its parents.
        user: `user` (default) or `root`.
        exclude: What is left out: patterns in the style of `.gitignore`, or the text of such a file.
        links: `keep` recreates links that lead outside of `remote` as they are, `skip` leaves them out. Nothing is
            written through them.
        config: Where AGS is, or the name of a saved block; by default the environment.

    Raises:
        NotFoundError: There is no such directory in the sandbox.
        TransferError: An entry would end outside of `local`, or must not be replaced; the message names it. Nothing
            was written.

    Example:
        ```python
        upload_directory(instance, "orders", "orders")
        download_directory(instance, "orders", "copy-of-orders")
        ```
    """
    return logged(
        transfer.download_directory(
            _plane(instance, config),
            remote,
            Path(local),
            exclude=exclude,
            links=links,
            user=user,
            progress=ProgressLog(f"download of {remote}"),
        )
    )


@sandbox_task("download", "pattern", exclude=check_exclude, links=check_links)
def download_files(
    instance: Instance | str,
    pattern: str,
    local: str | Path,
    user: str | None = None,
    exclude: Exclude = (),
    links: Links = "keep",
    config: AGSConfig | str | None = None,
) -> Transfer:
    """Copy the files of a sandbox that match a pattern to a directory of this machine.

    Args:
        instance: The instance or its id.
        pattern: As Bash has them: `out/*.parquet`, `logs/**/*.log` for directories of any depth.
        local: A directory; it is made. Names in it begin where the pattern does: `out/*.csv` gives `a.csv`.
        user: `user` (default) or `root`.
        exclude: What is left out: patterns in the style of `.gitignore`, or the text of such a file.
        links: `keep` recreates links that lead outside as they are, `skip` leaves them out.
        config: Where AGS is, or the name of a saved block; by default the environment.

    Raises:
        NotFoundError: Nothing matches.
        TransferError: An entry would end outside of `local`, or must not be replaced; the message names it. Nothing
            was written.

    Example:
        ```python
        write_file(instance, "out/a.parquet", b"PAR1")
        download_files(instance, "out/*.parquet", "results")
        ```
    """
    progress = ProgressLog(f"download of {pattern}")
    return logged(
        transfer.download_matching(
            _plane(instance, config),
            pattern,
            Path(local),
            exclude=exclude,
            links=links,
            user=user,
            progress=progress,
        )
    )


@sandbox_task("write", "path")
def write_file(
    instance: Instance | str,
    path: str,
    content: str | bytes,
    user: str | None = None,
    step: str = "",
    config: AGSConfig | str | None = None,
) -> None:
    """Write text (as UTF-8) or bytes to a file in a sandbox, whole or not at all.

    A file that is there keeps its mode. A link at the path is replaced. A retry of the run does not write the same
    content again, unless `step` is another name.

    Raises:
        TransferError: The path is a directory, or the user must not write there.

    Example:
        ```python
        write_file(instance, "settings.json", '{"rounds": 3}')
        ```
    """
    plane = _plane(instance, config)
    data = content.encode() if isinstance(content, str) else content
    made = identify("write_file", [path, user, hashlib.sha256(data).hexdigest()], step=step)
    _once(plane, made, lambda: transfer.write_file(plane, path, data, user=user))


@sandbox_task("read", "path")
def read_file(
    instance: Instance | str,
    path: str,
    user: str | None = None,
    limit: int = DEFAULT_LIMIT,
    config: AGSConfig | str | None = None,
) -> bytes:
    """Return the content of a file in a sandbox.

    Args:
        instance: The instance or its id.
        path: Absolute path, or relative to the user's home.
        user: `user` (default) or `root`.
        limit: The most bytes that are taken into memory.
        config: Where AGS is, or the name of a saved block; by default the environment.

    Raises:
        NotFoundError: There is no such file.
        OutputTooLargeError: It has more than `limit` bytes.

    Example:
        ```python
        write_file(instance, "settings.json", '{"rounds": 3}')
        assert read_file(instance, "settings.json") == b'{"rounds": 3}'
        ```
    """
    return transfer.read_file(_plane(instance, config), path, limit, user=user)


@sandbox_task("list", "path")
def list_files(
    instance: Instance | str,
    path: str,
    depth: int = 1,
    user: str | None = None,
    config: AGSConfig | str | None = None,
) -> list[FileInfo]:
    """Return what is in a directory of a sandbox, down to `depth` levels, without this package's own files.

    Example:
        ```python
        upload_directory(instance, "orders", "orders")
        print([entry.name for entry in list_files(instance, "orders")])
        ```
    """
    entries = _plane(instance, config).list(path, depth=depth, user=user)
    # The user may ask for such a directory by its name.
    own = sum(is_own(part) for part in path.split("/"))
    return [entry for entry in entries if sum(is_own(part) for part in entry.path.split("/")) <= own]


@sandbox_task("remove", "path")
def remove_path(
    instance: Instance | str, path: str, user: str | None = None, step: str = "", config: AGSConfig | str | None = None
) -> None:
    """Remove a file, or a directory with all that is in it. A path that is gone already is a success.

    A retry of the run does not remove it again, unless `step` is another name.

    Raises:
        ConfigurationError: It is a home, or a directory above it.

    Example:
        ```python
        remove_path(instance, "orders")
        ```
    """
    transfer.must_not_be_home(path)
    plane = _plane(instance, config)
    does = [path, user]
    _once(plane, identify("remove_path", does, step=step), lambda: transfer.remove_path(plane, path, user=user))
