"""Files over envd, as users of the SDKs see them."""

import os
from pathlib import Path

import pytest
from e2b import FileType, InvalidArgumentException, NotFoundException, SandboxException
from e2b.exceptions import AuthenticationException, FileNotFoundException
from e2b.sandbox.filesystem.filesystem import WriteEntry

from ags_flows.emulator.sandbox import isolation


def test_what_is_written_is_read_and_belongs_to_the_user(box):
    written = box.files.write("notes/a.txt", "hello")
    entry = box.files.get_info("notes/a.txt")

    assert written.path == "/home/user/notes/a.txt"
    assert box.files.read("/home/user/notes/a.txt") == "hello"
    assert (entry.name, entry.type, entry.size, entry.mode) == ("a.txt", FileType.FILE, 5, 0o644)
    assert (entry.permissions, entry.owner, entry.group, entry.symlink_target) == ("-rw-r--r--", "user", "user", None)
    assert box.files.get_info("notes").permissions == "drwxr-xr-x"
    assert box.commands.run("stat -c %U:%G:%a notes notes/a.txt").stdout == "user:user:755\nuser:user:644\n"


def test_overwriting_keeps_the_mode_and_gives_the_file_to_the_writer(box):
    box.commands.run("echo long old text > /tmp/mine; chmod 755 /tmp/mine", user="root")
    box.files.write("/tmp/mine", "new")

    assert box.files.read("/tmp/mine") == "new"
    assert box.commands.run("stat -c %U:%a /tmp/mine").stdout == "user:755\n"


@pytest.mark.skipif(not isolation().root, reason="an ordinary user has no other users to give")
def test_root_writes_what_belongs_to_root(box):
    box.files.write("/root/secret", "x", user="root")

    assert box.files.get_info("~/secret", user="root").owner == "root"
    assert box.files.get_info("/root/secret").path == "/root/secret"


def test_directories_are_made_once(box):
    assert box.files.make_dir("made/deep/er") is True
    assert box.files.make_dir("made/deep/er") is False
    box.files.write("made/file", "x")
    with pytest.raises(InvalidArgumentException):
        box.files.make_dir("made/file")
    assert box.files.make_dir("/new-at-root", user="root") is True


def test_a_listing_is_ordered_and_goes_as_deep_as_asked(box):
    for path in ("tree/b/x", "tree/a/y/z", "tree/c"):
        box.files.write(path, "1")

    assert [entry.name for entry in box.files.list("tree")] == ["a", "b", "c"]
    assert [entry.path.removeprefix("/home/user/tree/") for entry in box.files.list("tree", depth=3)] == [
        "a", "a/y", "a/y/z", "b", "b/x", "c"]  # fmt: skip
    with pytest.raises(NotFoundException):
        box.files.list("nowhere")
    with pytest.raises(InvalidArgumentException):
        box.files.list("tree/c")


def test_the_entry_of_a_link_has_its_target(box):
    box.commands.run(
        "mkdir links && cd links && echo 12345678 > aim && mkdir dir && touch dir/in"
        " && ln -s aim near && ln -s /home/user/links/aim far && ln -s nowhere broken && ln -s dir folder"
    )
    near, far = box.files.get_info("links/near"), box.files.get_info("links/far")

    assert near.symlink_target == far.symlink_target == "/home/user/links/aim"
    assert (near.type, near.mode, near.permissions) == (FileType.FILE, 0o644, "Lrwxrwxrwx")
    assert near.size == len("aim")
    assert [entry.name for entry in box.files.list("links")] == ["aim", "dir", "far", "folder", "near"]
    assert [entry.path for entry in box.files.list("links/folder")] == ["/home/user/links/folder/in"]
    assert [entry.name for entry in box.files.list("links", depth=2)].count("in") == 1
    assert box.files.read("links/near") == "12345678\n"
    box.files.write("links/far", "through")
    assert box.files.read("links/aim") == "through"
    box.files.remove("links/near")
    assert box.files.exists("links/aim")


def test_moving_makes_the_parent_and_replaces_a_file(box):
    box.files.write("from", "1")
    box.files.write("to/old", "2")

    assert box.files.rename("from", "to/old").path == "/home/user/to/old"
    assert box.files.read("to/old") == "1"
    assert not box.files.exists("from")
    assert box.files.rename("to/old", "brand/new/place").name == "place"
    with pytest.raises(NotFoundException):
        box.files.rename("nowhere", "else")


def test_removing_takes_all_and_nothing_is_fine_too(box):
    box.files.write("gone/a/b", "1")
    box.files.remove("gone")
    box.files.remove("gone")

    assert not box.files.exists("gone")


def test_reading_what_is_not_there_or_a_directory_is_refused(box):
    with pytest.raises(FileNotFoundException):
        box.files.read("nowhere")
    with pytest.raises(InvalidArgumentException):
        box.files.read("/home")
    with pytest.raises(InvalidArgumentException):
        box.files.write("/home", "x")
    with pytest.raises(InvalidArgumentException):
        box.files.read("~other/x")


def test_a_file_where_a_directory_must_be_is_an_error(box):
    box.files.write("plain", "x")
    with pytest.raises(SandboxException):
        box.files.write("plain/below", "y")
    with pytest.raises(SandboxException):
        box.files.make_dir("plain/below")


def test_an_unknown_user_is_refused(box):
    with pytest.raises(AuthenticationException):
        box.files.read("x", user="stranger")
    with pytest.raises(AuthenticationException):
        box.files.list(".", user="stranger")


def test_many_files_are_written_in_one_request(box):
    entries = [WriteEntry(path=f"many/{number}.txt", data=f"file {number}") for number in range(50)]
    written = box.files.write_files(entries)

    assert [entry.path for entry in written] == [f"/home/user/many/{number}.txt" for number in range(50)]
    assert box.files.read("many/49.txt") == "file 49"
    assert box.files.write_files([]) == []


def test_files_that_report_size_0_are_read_whole(box):
    assert box.files.read("/proc/sys/kernel/ostype") == "Linux\n"
    assert b"processor" in box.files.read("/proc/cpuinfo", format="bytes")


def test_bytes_arrive_as_they_are(box):
    data = os.urandom(300_000)
    box.files.write("data.bin", data)

    assert bytes(box.files.read("data.bin", format="bytes")) == data
    assert b"".join(box.files.read("data.bin", format="stream")) == data


def test_compressed_transfers_give_the_same(box):
    box.files.write("squeezed", "compressed on the way", gzip=True)

    assert box.files.read("squeezed") == "compressed on the way"
    assert box.files.read("squeezed", gzip=True) == "compressed on the way"


def test_metadata_is_kept_shown_and_replaced_as_a_whole(box):
    assert box.files.write("tagged", "x", metadata={"author": "me", "Purpose": "test"}).metadata == {
        "author": "me", "purpose": "test"}  # fmt: skip
    assert box.files.get_info("tagged").metadata == {"author": "me", "purpose": "test"}
    assert box.files.rename("tagged", "renamed").metadata["author"] == "me"
    box.files.write("renamed", "y", metadata={"other": "1"}, use_octet_stream=True)
    assert box.files.get_info("renamed").metadata == {"other": "1"}
    box.files.write("renamed", "z")
    assert not box.files.get_info("renamed").metadata
    box.commands.run("python3 -c \"import os; os.setxattr('renamed', 'user.e2b.by', b'hand')\"")
    assert box.files.get_info("renamed").metadata == {"by": "hand"}


@pytest.mark.parametrize("link", ["/etc", "/proc/self/root", "../../../../../../etc", "/proc/1/root/etc"])
def test_no_link_leads_to_the_host(box, link):
    box.commands.run(f"ln -sfn {link} /tmp/escape")
    hosts = Path("/etc/passwd").read_text()
    for path in ("/tmp/escape/passwd", "/tmp/escape/etc/passwd", "../../../../../../../../etc/passwd"):
        try:
            text = box.files.read(path)
        except SandboxException:
            continue
        assert text != hosts
        assert "/home/user" in text


def test_writing_through_a_link_stays_inside(box, tmp_path):
    box.commands.run(f"mkdir -p /tmp/outside; ln -sfn {tmp_path} /tmp/outside/link; ln -sfn {tmp_path}/new /tmp/new")
    for path in ("/tmp/outside/link/file", "/tmp/new"):
        try:
            box.files.write(path, "escaped")
        except SandboxException:
            continue

    assert list(tmp_path.iterdir()) == []


def test_two_sandboxes_do_not_see_each_others_files(served, box):
    other = served.make()
    try:
        box.files.write("/tmp/only-here", "x")
        assert not served.attach(other).files.exists("/tmp/only-here")
    finally:
        served.kill(other)


def test_odd_names_work(box):
    name = "späß & 100% \"quoted\" 'single' \n newline.txt"
    box.files.write(f"odd/{name}", "x")

    assert [entry.name for entry in box.files.list("odd")] == [name]
    assert box.files.read(f"odd/{name}") == "x"
    box.files.remove(f"odd/{name}")
    assert box.files.list("odd") == []
