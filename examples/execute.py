"""Execute notebooks against a separate emulator and keep their outputs: `python examples/execute.py *.ipynb`."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from ags_flows.testing import running_emulator


def execute(path: Path, environment: Mapping[str, str], directory: str | Path) -> nbformat.NotebookNode:
    """Execute the notebook of a path, and return it with the new outputs.

    Args:
        path: The notebook.
        environment: What its kernel finds beside its own: where AGS is.
        directory: Where it runs and writes.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=180, coalesce_streams=True, resources={"metadata": {"path": str(directory)}}
    )
    client.execute(env={**os.environ, **environment})
    for cell in notebook.cells:
        # The times of execution are of no use, and change every time.
        cell.metadata.pop("execution", None)
    for name in ("kernelspec", "language_info"):
        notebook.metadata.pop(name, None)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return notebook


if __name__ == "__main__":
    for name in sys.argv[1:]:
        with running_emulator() as emulator, tempfile.TemporaryDirectory() as directory:
            nbformat.write(execute(Path(name), emulator.environment, directory), name)
