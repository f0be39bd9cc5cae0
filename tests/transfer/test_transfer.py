"""Files and directories: whole, with what belongs to them, and never outside of the target."""

import os
import posixpath
import stat
import tarfile

import pytest

from ags_flows.errors import NotFoundError, OutputTooLargeError, TransferError, TransferIncompleteError
from ags_flows.transfer import (
    download_directory,
    download_file,
    download_matching,
    read_file,
    remove_path,
    upload_directory,
    upload_file,
    write_file,
)


def test_a_binary_file_comes_back_as_it_went_with_its_mode(plane, tmp_path):
    source, back = tmp_path / "tool", tmp_path / "deep" / "back"
    source.write_bytes(os.urandom(3_000_001))
    source.chmod(0o755)
    moved = upload_file(plane, source, "/tmp/new/place/tool")
    assert (moved.files, moved.size) == (1, 3_000_001)
    assert plane.stat("/tmp/new/place/tool").mode == 0o755
    download_file(plane, "/tmp/new/place/tool", back)
    assert back.read_bytes() == source.read_bytes()
    assert stat.S_IMODE(back.stat().st_mode) == 0o755


def test_an_upload_replaces_what_was_there_and_leaves_nothing_beside_it(plane, tmp_path):
    source = tmp_path / "f"
    for text in ("a much longer text", "short"):
        source.write_text(text)
        upload_file(plane, source, "/tmp/replaced/f")
    assert plane.read("/tmp/replaced/f") == b"short"
    assert [entry.name for entry in plane.list("/tmp/replaced")] == ["f"]


def test_a_target_that_ends_with_a_slash_is_a_directory(plane, tmp_path):
    (tmp_path / "f.txt").write_text("x")
    assert upload_file(plane, tmp_path / "f.txt", "/tmp/slash/").destination == "/tmp/slash/f.txt"
    download_file(plane, "/tmp/slash/f.txt", tmp_path)
    with pytest.raises(TransferError, match="is a directory in the sandbox"):
        upload_file(plane, tmp_path / "f.txt", "/tmp/slash")


def test_paths_may_be_odd(plane, tmp_path):
    name = 'it\'s a "name" $HOME `x` \\ 你好'
    (tmp_path / name).write_text("x")
    upload_file(plane, tmp_path / name, f"/tmp/odd/{name}")
    assert plane.read(f"/tmp/odd/{name}") == b"x"
    upload_directory(plane, tmp_path, f"/tmp/odd dir/{name}")
    download_directory(plane, f"/tmp/odd dir/{name}", tmp_path / "back")
    assert (tmp_path / "back" / name).read_text() == "x"


@pytest.mark.parametrize("name", ["~backup", "~$doc.docx", "~root/x", "./~", "./~/x", "a/../~x"])
def test_other_names_that_begin_with_a_tilde_are_names_in_every_operation(plane, tmp_path, name):
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "f").write_text("content")
    upload_file(plane, tmp_path / "local" / "f", name)
    path = f"/home/user/{posixpath.normpath(name)}"
    assert plane.read(path) == b"content" == read_file(plane, name, 100)
    download_file(plane, name, tmp_path / "back")
    assert (tmp_path / "back").read_text() == "content"
    assert plane.exists(name) and plane.stat(name).path == path
    remove_path(plane, name)
    assert not plane.exists(path)
    write_file(plane, name, b"written")
    assert plane.read(path) == b"written" == plane.read_range(name, 0, 100)
    plane.remove(name)
    assert not plane.exists(path)
    upload_directory(plane, tmp_path / "local", name)
    assert [entry.path for entry in plane.list(name)] == [f"{path}/f"]
    download_directory(plane, name, tmp_path / "tree")
    assert download_matching(plane, f"{name}/*", tmp_path / "matching").files == 1
    assert (tmp_path / "tree" / "f").read_text() == (tmp_path / "matching" / "f").read_text() == "content"
    remove_path(plane, name)
    assert not plane.exists(path)
    plane.make_dir(name)
    plane.move(name, f"{name}-moved")
    assert plane.exists(f"{path}-moved") and not plane.exists(path)


def test_a_home_can_be_meant_by_a_tilde_or_by_nothing(plane, tmp_path):
    (tmp_path / "f").write_text("home")
    upload_file(plane, tmp_path / "f", "~/tilde/f")
    upload_directory(plane, tmp_path, "~/tilde-dir")
    assert plane.read("/home/user/tilde/f") == plane.read("tilde-dir/f") == b"home"


def test_a_directory_keeps_modes_links_and_empty_directories(plane, tmp_path):
    source = tmp_path / "source"
    (source / "sub" / "empty").mkdir(parents=True)
    (source / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (source / "run.sh").chmod(0o755)
    (source / "link").symlink_to("run.sh")
    (source / ".hidden").write_text("h")
    assert upload_directory(plane, source, "/tmp/tree").files == 3
    assert plane.run("/tmp/tree/link").stdout == "ran\n"
    download_directory(plane, "/tmp/tree", tmp_path / "back")
    back = tmp_path / "back"
    assert sorted(str(path.relative_to(back)) for path in back.rglob("*")) == [
        ".hidden",
        "link",
        "run.sh",
        "sub",
        "sub/empty",
    ]
    assert os.readlink(back / "link") == "run.sh"
    assert os.access(back / "run.sh", os.X_OK)


def test_a_directory_is_added_to_what_is_there(plane, tmp_path):
    (tmp_path / "one" / "d").mkdir(parents=True)
    (tmp_path / "one" / "d" / "a").write_text("a")
    (tmp_path / "two" / "d").mkdir(parents=True)
    (tmp_path / "two" / "d" / "b").write_text("b")
    upload_directory(plane, tmp_path / "one", "/tmp/merged")
    upload_directory(plane, tmp_path / "two", "/tmp/merged")
    download_directory(plane, "/tmp/merged", tmp_path / "one")
    assert sorted(path.name for path in (tmp_path / "one" / "d").iterdir()) == ["a", "b"]


def test_what_is_missing_is_named(plane, tmp_path):
    with pytest.raises(TransferError, match="no-such-file"):
        upload_file(plane, tmp_path / "no-such-file", "x")
    with pytest.raises(NotFoundError, match="no-such-remote"):
        download_file(plane, "/tmp/no-such-remote", tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["../escape", "/absolute", "a/../../escape"])
def test_a_sandbox_whose_tar_lies_cannot_write_outside(plane, tmp_path, monkeypatch, name):
    archive = tmp_path / "evil.tar"
    with tarfile.open(archive, "w") as tar:
        entry = tarfile.TarInfo(name)
        tar.addfile(entry)
    upload_file(plane, archive, "/tmp/evil.tar")
    # Whatever is asked of it, this tar gives the evil archive.
    plane.write(
        "/tmp/bin/tar", "#!/bin/sh\nwhile [ $# -gt 0 ]; do case $1 in -cf) cp /tmp/evil.tar $2;; esac; shift; done\n"
    )
    plane.run("chmod +x /tmp/bin/tar; mkdir -p /tmp/any")
    script = plane.script
    monkeypatch.setattr(plane, "script", lambda text, **options: script(f"PATH=/tmp/bin:$PATH\n{text}", **options))
    target = tmp_path / "deep" / "target"
    with pytest.raises(TransferError, match="outside of the target"):
        download_directory(plane, "/tmp/any", target)
    assert not target.exists()
    assert not (tmp_path / "escape").exists()


def test_a_file_that_is_there_already_is_not_sent_again(plane, tmp_path):
    source = tmp_path / "f"
    source.write_bytes(os.urandom(100_000))
    assert upload_file(plane, source, "/tmp/again/f").unchanged == 0
    before = plane.stat("/tmp/again/f").modified_at
    assert upload_file(plane, source, "/tmp/again/f").unchanged == 1
    assert plane.stat("/tmp/again/f").modified_at == before
    changed = bytearray(source.read_bytes())
    changed[50_000] ^= 1
    source.write_bytes(changed)
    assert upload_file(plane, source, "/tmp/again/f").unchanged == 0
    source.chmod(0o755)
    assert upload_file(plane, source, "/tmp/again/f").unchanged == 0
    assert plane.read("/tmp/again/f") == bytes(changed)
    assert plane.stat("/tmp/again/f").mode == 0o755


def test_of_a_directory_only_what_has_changed_is_sent_again(plane, tmp_path):
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    for number in range(20):
        (source / "sub" / f"file {number}\n").write_text(f"content {number}")
    os.link(source / "sub" / "file 3\n", source / "hard")
    (source / "link").symlink_to("hard")
    assert upload_directory(plane, source, "/tmp/incremental").unchanged == 0
    (source / "sub" / "file 7\n").write_text("another")
    (source / "sub" / "file 8\n").chmod(0o700)
    (source / "new").write_text("new")
    again = upload_directory(plane, source, "/tmp/incremental")
    assert (again.files, again.unchanged) == (23, 19)
    assert plane.read("/tmp/incremental/sub/file 7\n") == b"another"
    assert plane.stat("/tmp/incremental/sub/file 8\n").mode == 0o700
    assert plane.read("/tmp/incremental/new") == b"new"
    assert plane.read("/tmp/incremental/link") == b"content 3"
    assert plane.run("ls -d /tmp/.ags_flows*").exit_code != 0


def test_what_matches_a_pattern_is_downloaded(plane, tmp_path):
    plane.run("mkdir -p 'glob/a b/c' && cd glob && touch 1.csv 2.csv 3.txt 'a b/4.csv' 'a b/c/5.csv' -- '-x.csv'")
    assert download_matching(plane, "~/glob/*.csv", tmp_path / "one").files == 3
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["-x.csv", "1.csv", "2.csv"]
    download_matching(plane, "/home/user/glob/**/*.csv", tmp_path / "all")
    assert (tmp_path / "all" / "a b" / "c" / "5.csv").is_file()
    download_matching(plane, "glob/a*/[0-9].csv", tmp_path / "one")
    assert (tmp_path / "one" / "a b" / "4.csv").is_file()
    assert (tmp_path / "one" / "1.csv").is_file()
    for pattern in ("glob/*.parquet", "no/such/*", "glob/$(touch hacked)*"):
        with pytest.raises(NotFoundError):
            download_matching(plane, pattern, tmp_path / "none")
    assert not plane.exists("glob/hacked")
    assert not (tmp_path / "none").exists()


def test_a_target_in_the_way_is_named(plane, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("x")
    plane.run("mkdir -p way && touch way/file")
    with pytest.raises(TransferError, match="way/file is there already, and is not a directory"):
        upload_directory(plane, tmp_path / "d", "way/file")
    with pytest.raises(TransferError, match="d/f is there already, and is not a directory"):
        download_directory(plane, "way", tmp_path / "d" / "f")
    with pytest.raises(TransferError, match="way is a directory. Use download_directory"):
        download_file(plane, "way", tmp_path / "x")
    with pytest.raises(TransferError, match="way/file is a file. Use download_file"):
        download_directory(plane, "way/file", tmp_path / "x")
    with pytest.raises(TransferError, match="is not a file. Use upload_directory"):
        upload_file(plane, tmp_path / "d", "x")


def test_a_file_that_changes_under_the_download_is_not_taken_for_whole(plane, tmp_path):
    plane.run("head -c 3000000 /dev/urandom > changing")
    seen = []

    def change(done, total):
        if not seen:
            plane.run("printf x | dd of=changing bs=1 seek=10 conv=notrunc 2>/dev/null; echo more >> changing")
        seen.append((done, total))

    with pytest.raises(TransferIncompleteError, match="changed while it was read"):
        download_file(plane, "changing", tmp_path / "x", progress=change)
    assert list(tmp_path.iterdir()) == []
    assert seen[-1][0] >= 3_000_000


def test_a_file_that_only_grows_is_whole_up_to_what_came(plane, tmp_path):
    plane.run("head -c 3000000 /dev/urandom > growing")
    done = []

    def grow(*_):
        if not done:
            done.append(plane.run("echo more >> growing"))

    assert download_file(plane, "growing", tmp_path / "x", progress=grow).size >= 3_000_000


def test_a_file_that_is_too_large_for_memory_is_refused(plane):
    plane.run("head -c 1000 /dev/zero > large")
    assert len(read_file(plane, "large", 1000)) == 1000
    with pytest.raises(OutputTooLargeError, match="more than 999 bytes. Download it"):
        read_file(plane, "large", 999)
