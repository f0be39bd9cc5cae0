"""Tasks that move files into a sandbox, out of it, and within it."""

from __future__ import annotations

from pathlib import Path

from ags_flows.blocks import AGSConfig
from ags_flows.cloud.data_plane import DataPlane
from ags_flows.execution import transfer
from ags_flows.execution.planes import open_plane
from ags_flows.models import FileInfo, Instance, Transfer
from ags_flows.tasks.instances import instance_id
from ags_flows.tasks.logs import run_logger
from ags_flows.tasks.retries import sandbox_task


def _plane(instance: Instance | str, config: AGSConfig | None) -> DataPlane:
    return open_plane((config or AGSConfig()).connection(), instance_id(instance)).plane


def _told(moved: Transfer) -> Transfer:
    size, speed = moved.size / 1e6, moved.size / 1e6 / max(moved.seconds, 1e-3)
    files = f"{moved.files:,} files, " if moved.files != 1 else ""
    run_logger().info("%s -> %s: %s%.1f MB, %.0f MB/s", moved.source, moved.destination, files, size, speed)
    return moved


@sandbox_task("upload", "local")
def upload_file(
    instance: Instance | str,
    local: str | Path,
    remote: str,
    user: str | None = None,
    config: AGSConfig | None = None,
) -> Transfer:
    """Copy a local file into a sandbox, whole or not at all. Parent directories are made, the mode is kept.

    Args:
        instance: The instance or its id.
        local: A file on this machine.
        remote: Absolute path, or relative to the user's home.
        user: Who owns it in the sandbox: `user` (default) or `root`.
        config: Where AGS is; by default from the environment.

    Raises:
        TransferError: The file cannot be read, or did not arrive whole.
    """
    return _told(transfer.upload_file(_plane(instance, config), Path(local), remote, user=user))


@sandbox_task("upload", "local")
def upload_directory(
    instance: Instance | str,
    local: str | Path,
    remote: str,
    user: str | None = None,
    config: AGSConfig | None = None,
) -> Transfer:
    """Copy a local directory with all that is in it into a sandbox; modes, links and empty directories are kept."""
    return _told(transfer.upload_directory(_plane(instance, config), Path(local), remote, user=user))


@sandbox_task("download", "remote")
def download_file(
    instance: Instance | str,
    remote: str,
    local: str | Path,
    user: str | None = None,
    config: AGSConfig | None = None,
) -> Transfer:
    """Copy a file of a sandbox to this machine, whole or not at all.

    Raises:
        NotFoundError: There is no such file in the sandbox.
        TransferError: It did not arrive whole.
    """
    return _told(transfer.download_file(_plane(instance, config), remote, Path(local), user=user))


@sandbox_task("download", "remote")
def download_directory(
    instance: Instance | str,
    remote: str,
    local: str | Path,
    user: str | None = None,
    config: AGSConfig | None = None,
) -> Transfer:
    """Copy a directory of a sandbox to this machine. Nothing can be written outside of `local`.

    Raises:
        NotFoundError: There is no such directory in the sandbox.
        TransferError: An entry would end outside of `local`, or is a device; the message names it.
    """
    return _told(transfer.download_directory(_plane(instance, config), remote, Path(local), user=user))


@sandbox_task("write", "path")
def write_file(
    instance: Instance | str,
    path: str,
    content: str | bytes,
    user: str | None = None,
    config: AGSConfig | None = None,
) -> None:
    """Write text (as UTF-8) or bytes to a file in a sandbox."""
    _plane(instance, config).write(path, content, user=user)


@sandbox_task("read", "path")
def read_file(instance: Instance | str, path: str, user: str | None = None, config: AGSConfig | None = None) -> bytes:
    """Return the content of a file in a sandbox.

    Raises:
        NotFoundError: There is no such file.
    """
    return _plane(instance, config).read(path, user=user)


@sandbox_task("list", "path")
def list_files(
    instance: Instance | str,
    path: str,
    depth: int = 1,
    user: str | None = None,
    config: AGSConfig | None = None,
) -> list[FileInfo]:
    """Return what is in a directory of a sandbox, down to `depth` levels."""
    return _plane(instance, config).list(path, depth=depth, user=user)


@sandbox_task("remove", "path")
def remove_path(instance: Instance | str, path: str, user: str | None = None, config: AGSConfig | None = None) -> None:
    """Remove a file, or a directory with all that is in it. A path that is gone already is a success."""
    _plane(instance, config).remove(path, user=user)
