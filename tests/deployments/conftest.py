"""What lies in deployments/ and blocks/: scripts and files, not modules of the package."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def script(path):
    """Import a script that belongs to no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def serving():
    return script(ROOT / "deployments" / "serve.py")


@pytest.fixture(scope="session")
def registering():
    return script(ROOT / "blocks" / "register.py")
