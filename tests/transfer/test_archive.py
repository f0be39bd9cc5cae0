"""Archives that come out of a sandbox are checked, whatever they claim."""

import io
import lzma
import tarfile
import tracemalloc
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ags_flows.errors import TransferError, TransferIncompleteError
from ags_flows.transfer import archive, download_directory
from ags_flows.transfer.archive import contents
from ags_flows.transfer.placement import parents_of, place
from ags_flows.transfer.remote_scripts import read_list


def entry(name, kind=tarfile.REGTYPE, link="", content=b""):
    header = tarfile.TarInfo(name)
    header.type, header.linkname, header.size = kind, link, len(content)
    return header, content


def packed(*entries, **options):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", **options) as tar:
        for header, content in entries:
            tar.addfile(header, io.BytesIO(content))
    return file


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([entry("../escape")], "outside of the target"),
        ([entry("/absolute")], "outside of the target"),
        ([entry("a/../../escape")], "outside of the target"),
        ([entry("a", tarfile.SYMTYPE, "/etc"), entry("a/passwd")], "through a link"),
        ([entry("a/passwd"), entry("a", tarfile.SYMTYPE, "/etc")], "through a link"),
        ([entry("a/b/c"), entry("a", tarfile.SYMTYPE, "/etc")], "through a link"),
        ([entry("a"), entry("./a")], "is there twice"),
        ([entry("a", tarfile.LNKTYPE, "/etc/passwd")], "hard link to '/etc/passwd'"),
        ([entry("a", tarfile.LNKTYPE, "../x")], "hard link to '../x'"),
        ([entry("d", tarfile.DIRTYPE), entry("a", tarfile.LNKTYPE, "d")], "hard link to 'd'"),
        ([entry("a", tarfile.CHRTYPE), entry("a/b")], "through a link or a file"),
        ([entry("a", tarfile.GNUTYPE_SPARSE)], "a type that is not known"),
        ([entry(".", tarfile.SYMTYPE, "/etc")], "stands for the directory itself"),
    ],
)
def test_an_entry_that_may_do_harm_is_refused(entries, message):
    with pytest.raises(TransferError, match=message):
        contents(packed(*entries), "out")


def test_a_negative_size_is_refused():
    header, content = entry("a", content=b"")
    header.pax_headers = {"size": "-1"}
    with pytest.raises(TransferError, match="'a', which has the size -1"):
        contents(packed((header, content), format=tarfile.PAX_FORMAT), "out")


def test_a_hard_link_to_a_link_is_a_link(plane):
    found = contents(packed(entry("a", tarfile.SYMTYPE, "x"), entry("b", tarfile.LNKTYPE, "a")), "out")
    assert [(one.name, one.type, one.link) for one in found] == [("a", b"2", "x"), ("b", b"2", "x")]


@given(st.permutations(["a", "b", "d/a", "d/b", "d/e/a", "e/c"]), st.integers(0, 4))
def test_directories_and_files_come_before_what_is_in_them_and_links_to_them(names, last):
    files, links = names[: last + 1], names[last + 1 :]
    aims = {name: [*files, *links][number % (last + 1 + number // 2)] for number, name in enumerate(links)}
    listed = [entry(name) for name in files] + [entry(name, tarfile.LNKTYPE, aim) for name, aim in aims.items()]
    seen = set()
    for one in contents(packed(*listed), "out"):
        above = one.name.rpartition("/")[0]
        assert not one.name or above in ("", *seen), one
        assert not one.link or one.link in files and one.link in seen, one
        seen.add(one.name)
    assert seen == {"d", "e", "d/e", *names}


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_what_has_no_content_is_known_by_its_type(kind):
    found = contents(packed(entry("a", kind), entry("b", tarfile.LNKTYPE, "a"), entry("c")), "out")
    assert [one.name for one in found if one.is_special] == ["a", "b"]


def test_an_archive_is_plain_tar():
    compressed = io.BytesIO(lzma.compress(packed(entry("a", content=bytes(1_000_000))).getvalue()))
    with pytest.raises(TransferError, match="out cannot be unpacked"):
        contents(compressed, "out")


def test_the_number_of_entries_and_the_size_of_headers_are_limited(monkeypatch):
    monkeypatch.setattr(archive, "MOST_ENTRIES", 3)
    with pytest.raises(TransferError, match="more than 3 entries"):
        contents(packed(*(entry(str(number)) for number in range(4))), "out")
    with pytest.raises(TransferError, match="a header is larger than 65,536 bytes"):
        contents(packed(entry("x" * 2_000_000), format=tarfile.GNU_FORMAT), "out")


def test_paths_are_limited_in_length_and_together(monkeypatch):
    with pytest.raises(TransferError, match="a path of more than 4,096 characters"):
        contents(packed(entry("a/" * 3_000 + "b"), format=tarfile.GNU_FORMAT), "out")
    with pytest.raises(TransferError, match="a path of more than 4,096 characters"):
        contents(packed(entry("a", tarfile.SYMTYPE, "x" * 5_000), format=tarfile.GNU_FORMAT), "out")
    # Directories that the archive has no entries for count as well.
    monkeypatch.setattr(archive, "MOST_PATHS", 100_000)
    with pytest.raises(TransferError, match="or 100,000 bytes of paths"):
        contents(packed(entry("a/" * 1_000 + "b"), format=tarfile.GNU_FORMAT), "out")


@pytest.mark.parametrize("name", ["a", "😀"])
def test_deep_paths_are_refused_in_bounded_memory(name):
    """One path of 4,000 characters stands for 2,000 directories."""
    paths = [f"{number:03}/{f'{name}/' * 1_900}b" for number in range(100)]
    file = packed(*map(entry, paths), format=tarfile.GNU_FORMAT)
    tracemalloc.start()
    try:
        with pytest.raises(TransferError, match="bytes of paths"):
            contents(file, "out")
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


def test_headers_for_all_entries_are_refused():
    with pytest.raises(TransferError, match="a header for all entries"):
        contents(packed(entry("a"), format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}), "out")


@pytest.mark.parametrize("script", ["head -c 300000000 /dev/zero", "yes '' | head -n 3000000 | tr '\\n' '\\0'"])
def test_a_list_of_a_sandbox_is_read_in_bounded_memory(plane, script):
    plane.run(f"{script} >list")
    tracemalloc.start()
    try:
        with pytest.raises(TransferError, match="^download of x: there are more than 1,000,000 entries"):
            read_list(plane, "list", None, "download of x")
        assert tracemalloc.get_traced_memory()[1] < 600_000_000
    finally:
        tracemalloc.stop()


def test_an_entry_that_is_longer_than_the_archive_is_refused():
    file = packed(entry("a", content=bytes(5_000)))
    file.truncate(2_000)
    with pytest.raises(TransferError, match="cannot be unpacked"):
        contents(file, "out")


def test_a_sandbox_that_sends_a_compressed_archive_fills_no_disk(plane, tmp_path, monkeypatch):
    """Its tar may be any program."""
    remote = f"/tmp/{uuid.uuid4().hex}"
    plane.write(f"{remote}/tar.xz", lzma.compress(packed(entry("a", content=bytes(10_000_000))).getvalue()))
    plane.write(
        f"{remote}.bin/tar",
        f"#!/bin/sh\nwhile [ $# -gt 0 ]; do case $1 in -cf) cp {remote}/tar.xz $2;; esac; shift; done\n",
    )
    plane.script(f"chmod +x {remote}.bin/tar")
    script = plane.script
    monkeypatch.setattr(plane, "script", lambda text, **options: script(f"PATH={remote}.bin:$PATH\n{text}", **options))
    with pytest.raises(TransferError, match="cannot be unpacked"):
        download_directory(plane, remote, tmp_path / "back")
    assert list(tmp_path.iterdir()) == []


def test_a_sandbox_that_sends_without_end_is_cut_off(plane, tmp_path, monkeypatch):
    plane.script("mkdir -p endless; echo x >endless/f")

    def endless(*_, **__):
        while True:
            yield bytes(1_000_000)

    monkeypatch.setattr(plane, "read_stream", endless)
    with pytest.raises(TransferIncompleteError, match="did not arrive whole"):
        download_directory(plane, "endless", tmp_path / "back")
    assert list(tmp_path.iterdir()) == []


def test_entries_are_written_beside_their_targets():
    """In the nearest directory that exists, which is not always the target."""
    there = {"old": "directory", "old/file": "other", "old/deep": "directory"}
    entries = [
        ("old", True),
        ("old/file", False),
        ("old/deep", True),
        ("old/deep/x", False),
        ("new", True),
        ("new/a", 0),
    ]
    placed = place(entries, lambda name, _: there.get(name, "missing"), ValueError, "T")
    assert placed == {"old/file": "old/T/file", "old/deep/x": "old/deep/T/x", "new": "T/new", "new/a": "T/new/a"}
    assert parents_of(placed.values(), "T") == ["old", "old/deep", "."]


@pytest.mark.parametrize("exclude", [(), ["nothing"]])
def test_hard_links_may_have_any_names(plane, remote, tmp_path, exclude):
    names = [f"{directory}/{number}" for number in range(6) for directory in "ab"]
    pairs = [*zip(names, reversed(names), strict=True)]
    made = [
        f"mkdir -p {pair}/a {pair}/b; echo {pair} >{pair}/{one}; ln -f {pair}/{one} {pair}/{other}"
        for pair, (one, other) in enumerate(pairs)
    ]
    assert plane.script("\n".join([f"mkdir {remote}", f"cd {remote}", *made])).ok
    for _ in range(2):
        download_directory(plane, remote, tmp_path / "back", exclude=exclude)
        for pair, both in enumerate(pairs):
            one, other = (tmp_path / "back" / str(pair) / name for name in both)
            assert one.read_text() == f"{pair}\n" and one.samefile(other)
