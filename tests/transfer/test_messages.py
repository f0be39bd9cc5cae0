"""What a transfer refuses is named, with what to do; what a sandbox sends is checked."""

import io
import os
import tarfile

import pytest

from ags_flows.errors import TransferError
from ags_flows.tasks import download_file as download_file_task
from ags_flows.transfer import download_directory, download_file, files, upload_directory, upload_file, write_file
from ags_flows.transfer import downloads as module
from ags_flows.transfer.exclusion import Exclusion


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "f").write_text("f")
    return tmp_path / "source"


def test_a_directory_in_the_place_of_a_file_is_named_with_a_remedy(plane, source):
    with pytest.raises(TransferError, match="write /tmp: /tmp is a directory.*Give the path of a file in it"):
        write_file(plane, "/tmp", "x")
    with pytest.raises(TransferError, match="/tmp is a directory.*End it with '/' to put the file in it"):
        upload_file(plane, source / "f", "/tmp")


@pytest.mark.skipif(os.geteuid() != 0, reason="without root privileges the emulator has only one user")
@pytest.mark.parametrize(("target", "shown"), [("/", "/"), ("..", "/home"), ("/etc", "/etc")])
def test_a_directory_that_must_not_be_written_is_named_with_a_remedy(plane, source, target, shown):
    with pytest.raises(TransferError, match=f'must not write to the directory {shown}. Use user="root"'):
        upload_directory(plane, source, target)


@pytest.mark.skipif(os.geteuid() != 0, reason="without root privileges the emulator has only one user")
def test_a_file_that_must_not_be_read_is_named_with_a_remedy(plane, tmp_path):
    plane.script("mkdir -p closed; echo x >closed/secret; chmod 000 closed/secret")
    with pytest.raises(TransferError, match='secret: Cannot open: Permission denied. Use user="root", or leave it out'):
        download_directory(plane, "closed", tmp_path / "a")
    with pytest.raises(TransferError, match='must not read closed/secret. Use user="root"'):
        download_file(plane, "closed/secret", tmp_path / "a")


@pytest.mark.parametrize("response", ["echo", "echo 1 2 3 4", "echo a b c", "echo -- -1 5 x"])
def test_a_response_that_is_not_valid_is_an_error_of_the_transfer(plane, tmp_path, monkeypatch, response):
    plane.script("mkdir -p tree; echo x >tree/f")
    monkeypatch.setattr(module, "_PACK", response)
    monkeypatch.setattr(files, "_LOOK", response)
    with pytest.raises(TransferError, match="download tree: the sandbox has sent an invalid response"):
        download_directory(plane, "tree", tmp_path / "a")
    with pytest.raises(TransferError, match="download tree/f: the sandbox has sent an invalid response"):
        download_file(plane, "tree/f", tmp_path / "a")


def test_entries_with_names_of_this_package_are_not_written(plane, tmp_path, monkeypatch):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("f", ".ags_flows/x", "d/.ags_flows-1"):
            tar.addfile(tarfile.TarInfo(name))
    plane.script("mkdir -p tree; echo x >tree/f")
    plane.write("made-up", data.getvalue())
    monkeypatch.setattr(
        module, "_PACK", 'cp ~/made-up "$W/archive"; echo 0; size_of "$W/archive"; hash_of "$W/archive"'
    )
    download_directory(plane, "tree", tmp_path / "a")
    assert sorted(path.name for path in (tmp_path / "a").rglob("*")) == ["d", "f"]


def test_a_local_path_that_ends_with_a_slash_is_a_directory(sandbox, plane, tmp_path):
    config, instance = sandbox
    plane.script("echo x >report")
    download_file_task.fn(instance, "report", f"{tmp_path}/new/", config=config)
    assert (tmp_path / "new" / "report").read_text() == "x\n"


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("[[:alpha:]]*", "abc", True),
        ("[[:alpha:]]*", "1bc", False),
        ("x[[:digit:]_]", "x_", True),
        ("x[![:digit:]]", "x5", False),
    ],
)
def test_classes_of_characters_are_those_of_git(pattern, name, covered):
    assert Exclusion([pattern]).covers(name, False) is covered
