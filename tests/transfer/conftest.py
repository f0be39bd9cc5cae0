"""What tests of transfers share."""

import uuid

import pytest


@pytest.fixture
def remote():
    """A new path in the sandbox."""
    return f"/tmp/{uuid.uuid4().hex}"


@pytest.fixture
def source(tmp_path):
    """A local directory with a file and a directory with a file."""
    source = tmp_path / "source"
    (source / "data").mkdir(parents=True)
    (source / "data" / "a").write_text("a")
    (source / "f").write_text("f")
    return source
