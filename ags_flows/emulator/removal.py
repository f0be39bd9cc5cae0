"""Removing directories that sandboxes have filled."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def remove_tree(directory: Path) -> None:
    """Remove a directory with all that can be removed of it, however deep it is."""
    try:
        shutil.rmtree(directory, ignore_errors=True)
    except RecursionError:
        subprocess.run(["rm", "-rf", "--", directory], check=False, stderr=subprocess.DEVNULL)
