"""Files that the start of a command takes, such as its input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.durable.waiting import Waiting
from ags_flows.errors import AGSFlowsError


@contextmanager
def uploaded_files(plane: DataPlane, waiting: Waiting, files: Mapping[str, bytes], user: str | None) -> Iterator[None]:
    """Upload files for a start script, which removes them. If there is an error, they are removed here.

    Args:
        plane: The sandbox.
        waiting: The waits of the command.
        files: Path to content.
        user: The owner.
    """
    try:
        for path, content in files.items():
            waiting.patiently(partial(plane.write, path, content, user=user))
        yield
    except BaseException:
        for path in files:
            with suppress(AGSFlowsError):
                plane.remove(path, user=user)
        raise
