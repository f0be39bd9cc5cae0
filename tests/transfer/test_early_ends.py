"""Responses that end cleanly but early, or never, and files whose size is not that of their content."""

from pathlib import Path

import pytest

from ags_flows.errors import NotFoundError, TransferError, TransferIncompleteError
from ags_flows.transfer import (
    download_directory,
    download_file,
    download_matching,
    read_file,
    upload_directory,
    upload_file,
)

SYSTEM = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.fixture
def arriving(plane, monkeypatch):
    """Let a response end after some bytes, as if it were whole."""
    whole = plane.read_stream

    def arriving(most):
        def early(path, **options):
            left = most
            for piece in whole(path, **options):
                yield piece[:left]
                left -= len(piece[:left])
                if not left:
                    return

        monkeypatch.setattr(plane, "read_stream", early)

    return arriving


@pytest.mark.parametrize(("size", "comes"), [(3_000_000, 1_000_000), (3_000_000, 2_999_999), (2, 0)])
def test_a_response_that_ends_early_is_not_a_whole_file(plane, arriving, tmp_path, remote, size, comes):
    plane.write(remote, bytes(size))
    (tmp_path / "f").write_text("old")
    arriving(comes)
    with pytest.raises(
        TransferIncompleteError, match=f"{remote}: it did not arrive whole.*{comes:,} of {size:,} bytes"
    ):
        download_file(plane, remote, tmp_path / "f")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
    with pytest.raises(TransferIncompleteError, match="did not arrive whole"):
        read_file(plane, remote, 1 << 30)


def test_a_file_that_becomes_shorter_is_not_taken_for_whole(plane, tmp_path, remote, monkeypatch):
    plane.write(remote, b"x" * 1000)
    whole = plane.read_stream

    def shorter(path, **options):
        plane.script(f"truncate -s 10 {remote}")
        return whole(path, **options)

    monkeypatch.setattr(plane, "read_stream", shorter)
    with pytest.raises(TransferIncompleteError):
        download_file(plane, remote, tmp_path / "f")
    plane.write(remote, b"x" * 1000)
    with pytest.raises(TransferIncompleteError):
        read_file(plane, remote, 1000)


@pytest.mark.parametrize("content", [b"ab", b""])
def test_no_more_is_taken_than_the_file_has(plane, tmp_path, remote, content, monkeypatch):
    plane.write(remote, content)
    sent = []

    def endless(*_, **__):
        yield content + bytes(1_000_000)
        while True:
            sent.append(1)
            yield bytes(1_000_000)

    monkeypatch.setattr(plane, "read_stream", endless)
    assert download_file(plane, remote, tmp_path / "f").size == len(content)
    assert (tmp_path / "f").read_bytes() == read_file(plane, remote, 2) == content
    assert not sent


def test_other_content_of_the_same_size_is_not_accepted_by_read(plane, remote, monkeypatch):
    plane.write(remote, b"right")
    monkeypatch.setattr(plane, "read_stream", lambda *_, **__: (piece for piece in [b"wrong"]))
    with pytest.raises(TransferIncompleteError, match="changed while it was read"):
        read_file(plane, remote, 100)


def test_a_list_of_names_that_ends_early_is_not_a_whole_list(plane, remote, tmp_path, arriving):
    plane.script(f"mkdir -p {remote}; touch {remote}/one {remote}/two")
    # Up to the end of a name.
    arriving(len(b"d.\0f./one\0"))
    with pytest.raises(TransferIncompleteError):
        download_directory(plane, remote, tmp_path / "back", exclude=["none"])


def test_files_of_the_kernel_are_downloaded_whole(plane, tmp_path, arriving):
    said = plane.script("cat /proc/version").stdout.encode()
    assert said
    assert read_file(plane, "/proc/version", 1000) == said
    assert download_file(plane, "/proc/version", tmp_path / "v").size == len(said)
    assert (tmp_path / "v").read_bytes() == said
    # It is another one whenever it is read.
    assert download_file(plane, "/proc/uptime", tmp_path / "u").size > 3
    arriving(3)
    with pytest.raises(TransferIncompleteError, match="version: it did not arrive whole"):
        download_file(plane, "/proc/version", tmp_path / "v")
    with pytest.raises(TransferIncompleteError, match="version: it did not arrive whole"):
        read_file(plane, "/proc/version", 1000)
    assert plane.script("ls -d /tmp/.ags_flows*").exit_code != 0


def test_a_file_of_the_kernel_that_cannot_be_read_is_named(plane, tmp_path):
    with pytest.raises(TransferError, match="/proc/self/mem"):
        download_file(plane, "/proc/self/mem", tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_files_of_the_kernel_in_a_directory_are_named_and_left_out(plane, tmp_path):
    found = download_directory(plane, "/proc/sys/fs/mqueue", tmp_path / "d")
    assert "msg_max" in found.left_out and found.files == 0
    with pytest.raises(NotFoundError, match="os(type|release) has no content, or the kernel makes it"):
        download_matching(plane, "/proc/sys/kernel/os*", tmp_path / "d")


def test_files_of_the_kernel_are_uploaded_whole(plane, tmp_path, remote):
    version = Path("/proc/version")
    moved = upload_file(plane, version, remote)
    assert plane.read(remote) == version.read_bytes()
    assert (moved.source, moved.size) == (str(version), len(version.read_bytes()))
    upload_file(plane, version, f"{remote}.d/")
    assert plane.read(f"{remote}.d/version") == version.read_bytes()
    upload = upload_directory(plane, Path("/proc/sys/fs/mqueue"), f"{remote}.e")
    assert "msg_max" in upload.left_out


@pytest.mark.skipif(not SYSTEM.is_file(), reason="this machine has no such file")
def test_files_with_a_smaller_content_than_their_size_are_transferred_whole(plane, tmp_path, remote):
    assert upload_file(plane, SYSTEM, remote).size == len(SYSTEM.read_bytes())
    assert plane.read(remote) == SYSTEM.read_bytes()
    if plane.script(f"[ -f {SYSTEM} ]").ok:
        download_file(plane, str(SYSTEM), tmp_path / "f")
        assert (tmp_path / "f").read_bytes() == plane.script(f"cat {SYSTEM}").stdout.encode()
