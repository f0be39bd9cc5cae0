"""How entries get to their targets: what is replaced, what is refused, and what stays as it was."""

import errno
import os
import tarfile
import uuid
from pathlib import Path

import pytest

from ags_flows.errors import NotFoundError, TransferError, TransferIncompleteError, UnreachableError
from ags_flows.transfer import (
    download_directory,
    download_file,
    download_matching,
    upload_directory,
    upload_file,
    write_file,
)


def look(plane, command, user="root"):
    return plane.script(command, user=user).stdout


@pytest.mark.parametrize("user", ["user", "root"])
@pytest.mark.parametrize("target", ["/tmp", "/home/user", "/home/user/mine", "/"])
def test_an_existing_directory_keeps_its_mode_and_owner(plane, source, target, user):
    plane.script("mkdir -p -m 751 mine")
    name = uuid.uuid4().hex
    (source / "f").rename(source / name)
    (source / "data").rename(source / f"{name}-d")
    (source / "tmp").mkdir(mode=0o700)
    (source / "tmp" / name).write_text("below")
    source.chmod(0o700)
    before = look(plane, "stat -c '%n %a %U' / /tmp /home /home/user /home/user/mine")
    if (target, user) == ("/", "user"):
        with pytest.raises(TransferError, match="user must not write to the directory"):
            upload_directory(plane, source, target, user=user)
    else:
        upload_directory(plane, source, target, user=user)
        assert look(plane, f"cat {target}/{name} {target}/{name}-d/a {target}/tmp/{name}") == "fabelow"
        upload_file(plane, source / name, f"{target}/{name}", user=user)
        look(plane, f"rm -rf {target}/{name}* {target}/tmp/{name}")
    assert look(plane, "stat -c '%n %a %U' / /tmp /home /home/user /home/user/mine") == before
    assert plane.run("echo works").stdout == "works\n"


def test_only_the_directories_that_get_entries_must_be_writable(plane, tmp_path):
    name = uuid.uuid4().hex
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / name).write_text("x")
    upload_directory(plane, tmp_path, "/")
    assert plane.read(f"/tmp/{name}") == b"x"


def test_a_link_to_a_directory_in_the_sandbox_is_followed(plane, source, remote):
    plane.script(f"mkdir -p {remote}/real {remote}/target; ln -s ../real {remote}/target/data")
    upload_directory(plane, source, f"{remote}/target")
    assert plane.read(f"{remote}/real/a") == b"a"
    assert look(plane, f"readlink {remote}/target/data") == "../real\n"


def test_a_link_at_the_target_is_replaced_by_every_transfer(plane, source, remote):
    for transfer in (
        lambda: upload_file(plane, source / "f", f"{remote}/f"),
        lambda: upload_directory(plane, source, remote),
        lambda: write_file(plane, f"{remote}/f", "f"),
    ):
        plane.script(f"rm -rf {remote}; mkdir {remote}; echo kept >{remote}/aim; ln -s aim {remote}/f")
        transfer()
        assert look(plane, f"cat {remote}/aim; cat {remote}/f; [ -L {remote}/f ] || echo ' file'") == "kept\nf file\n"


def test_what_stands_in_the_way_is_found_before_anything_is_written(plane, source, remote, tmp_path):
    plane.script(f"mkdir -p {remote}/f {remote}/data; echo old >{remote}/data/a; echo file >{remote}.data")
    with pytest.raises(TransferError, match="f is there already, and is a directory, not a file; nothing was written"):
        upload_directory(plane, source, remote)
    assert plane.read(f"{remote}/data/a") == b"old\n"
    plane.script(f"rm -rf {remote}/data; touch {remote}/data; rmdir {remote}/f")
    with pytest.raises(TransferError, match="data is there already, and is a file, not a directory"):
        upload_directory(plane, source, remote)
    assert not plane.exists(f"{remote}/f")

    (tmp_path / "back" / "f").mkdir(parents=True)
    (tmp_path / "back" / "f" / "precious").write_text("precious")
    plane.script(f"rm -r {remote}")
    upload_directory(plane, source, remote)
    with pytest.raises(TransferError, match="back/f is there already, and is a directory; in the sandbox it is a file"):
        download_directory(plane, remote, tmp_path / "back")
    with pytest.raises(TransferError, match="is a directory"):
        download_file(plane, f"{remote}/f", tmp_path / "back")
    assert (tmp_path / "back" / "f" / "precious").exists()
    assert os.listdir(tmp_path / "back") == ["f"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "data").write_text("a file")
    with pytest.raises(TransferError, match="other/data is there already, and is not a directory"):
        download_directory(plane, remote, tmp_path / "other")
    assert os.listdir(tmp_path / "other") == ["data"]
    (tmp_path / "leads-nowhere").symlink_to("nowhere")
    with pytest.raises(TransferError, match="is there already, and is not a directory"):
        download_directory(plane, remote, tmp_path / "leads-nowhere")


def test_a_local_link_that_leads_outside_is_never_written_through(plane, source, remote, tmp_path):
    upload_directory(plane, source, remote)
    back, outside = tmp_path / "back", tmp_path / "outside"
    back.mkdir()
    outside.mkdir()
    (back / "data").symlink_to(outside)
    with pytest.raises(TransferError, match="outside of the target; nothing was written"):
        download_directory(plane, remote, back)
    assert (os.listdir(back), os.listdir(outside)) == (["data"], [])
    (back / "data").unlink()
    (back / "inside").mkdir()
    (back / "data").symlink_to("inside")
    download_directory(plane, remote, back)
    assert (back / "inside" / "a").read_text() == "a"
    # The target itself may be a link: the caller names it.
    (tmp_path / "results").symlink_to(outside)
    download_directory(plane, remote, tmp_path / "results")
    assert (outside / "data" / "a").read_text() == "a"


def test_a_running_program_and_a_read_only_file_are_replaced(plane, tmp_path, remote):
    program = tmp_path / "tree" / "program"
    program.parent.mkdir()
    for round in range(2):
        program.unlink(missing_ok=True)
        program.write_bytes(Path("/bin/sleep").read_bytes() + bytes(round))
        program.chmod(0o555)
        upload_directory(plane, program.parent, remote)
        upload_file(plane, program, f"{remote}/other")
        plane.script(f"cd {remote} && (./program 60 & ./other 60 &) >/dev/null 2>&1 </dev/null")
    assert plane.stat(f"{remote}/program").size == plane.stat(f"{remote}/other").size == program.stat().st_size
    write_file(plane, f"{remote}/program", "text")
    assert plane.stat(f"{remote}/program").mode == 0o555
    plane.script(f"pkill -f {remote}; true")


def test_a_link_to_a_directory_uploads_the_directory(plane, source, remote, tmp_path):
    (tmp_path / "link").symlink_to(source)
    for _ in range(2):
        assert upload_directory(plane, tmp_path / "link", remote).files == 2
    assert plane.read(f"{remote}/data/a") == b"a"


def test_a_virtual_environment_can_be_downloaded_with_its_links(plane, remote, tmp_path):
    plane.script(f"mkdir -p {remote}/bin; ln -s /usr/bin/python3 {remote}/bin/python3; ln -s bin {remote}/b")
    download_directory(plane, remote, tmp_path / "venv")
    assert os.readlink(tmp_path / "venv" / "bin" / "python3") == "/usr/bin/python3"
    assert download_directory(plane, remote, tmp_path / "skipped", links="skip").files == 1
    assert sorted(os.listdir(tmp_path / "skipped")) == ["b", "bin"]
    assert os.listdir(tmp_path / "skipped" / "bin") == []


def test_hard_links_are_files_of_one_content(plane, remote, tmp_path):
    plane.script(f"mkdir {remote} {remote}/d; echo content >{remote}/a; ln {remote}/a {remote}/d/b")
    (tmp_path / "back" / "d").mkdir(parents=True)
    download_directory(plane, remote, tmp_path / "back")
    assert (tmp_path / "back" / "d" / "b").read_text() == "content\n"
    assert (tmp_path / "back" / "d" / "b").samefile(tmp_path / "back" / "a")


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="/dev/shm is not a file system here")
def test_a_mount_point_is_a_target(plane, source, remote):
    name = uuid.uuid4().hex
    (source / "f").rename(source / name)
    (source / "data").rename(source / f"{name}-d")
    upload_directory(plane, source, remote)
    try:
        for _ in range(2):
            download_directory(plane, remote, Path("/dev/shm"))
            download_matching(plane, f"{remote}/*", Path("/dev/shm"))
            download_file(plane, f"{remote}/{name}", Path("/dev/shm"))
        assert Path(f"/dev/shm/{name}-d/a").read_text() == "a"
        assert not [entry for entry in os.listdir("/dev/shm") if entry.startswith(".ags_flows")]
    finally:
        Path(f"/dev/shm/{name}").unlink(missing_ok=True)
        Path(f"/dev/shm/{name}-d/a").unlink(missing_ok=True)
        Path(f"/dev/shm/{name}-d").rmdir()


def test_nothing_is_renamed_from_one_existing_directory_to_another(plane, source, remote, tmp_path, monkeypatch):
    """A directory of the target may be a mount point, so every rename stays in its directory."""
    upload_directory(plane, source, remote)
    download_directory(plane, remote, tmp_path / "back")
    replace = os.replace

    def within(a, b):
        if Path(a).parent.parent != Path(b).parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        replace(a, b)

    monkeypatch.setattr(os, "replace", within)
    download_directory(plane, remote, tmp_path / "back")


def test_local_errors_name_the_path(plane, source, remote, tmp_path, monkeypatch):
    upload_directory(plane, source, remote)
    (tmp_path / "file").write_text("x")
    for download in (
        lambda to: download_directory(plane, remote, to),
        lambda to: download_matching(plane, f"{remote}/*", to),
        lambda to: download_file(plane, f"{remote}/f", to),
    ):
        with pytest.raises(TransferError, match="file.*cannot be written: Not a directory"):
            download(tmp_path / "file" / "below" / "x")
        with pytest.raises(TransferError, match="cannot be written: File name too long"):
            download(tmp_path / ("x" * 300))
    with pytest.raises(TransferError, match="zero byte"):
        upload_file(plane, source / "f", "a\0b")
    with pytest.raises(TransferError, match="is empty"):
        upload_directory(plane, source, "")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("ags_flows.transfer.archive.os.utime", lambda *_: full())
    monkeypatch.setattr("ags_flows.transfer.archive._write", full)
    with pytest.raises(TransferError, match="new cannot be written: No space left on device"):
        download_directory(plane, remote, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_does_not_fit_on_the_disk_is_refused_before_it_is_fetched(plane, source, remote, tmp_path, monkeypatch):
    upload_directory(plane, source, remote)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10_000}))
    with pytest.raises(TransferError, match="bytes in .*, which has 10,000 free"):
        download_directory(plane, remote, tmp_path / "back")
    assert os.listdir(tmp_path) == ["source"]


def test_the_longest_name_of_a_directory_is_a_target(plane, source, tmp_path):
    target = f"/tmp/{uuid.uuid4().hex}{'x' * 223}"
    upload_directory(plane, source, target)
    upload_file(plane, source / "f", f"{target}/{'y' * 255}")
    download_directory(plane, target, tmp_path / ("z" * 255))
    download_file(plane, f"{target}/f", tmp_path / ("z" * 255) / ("y" * 255))


@pytest.mark.parametrize(("how", "size"), [("shorter", 5), ("rewritten", 3_000_000), ("longer", 4_000_000)])
@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_file_that_changes_while_it_is_sent_is_not_placed(plane, source, remote, monkeypatch, what, how, size):
    path = source / "f"
    path.write_bytes(bytes(3_000_000))
    os.utime(path, (0, 0))

    def change(*_):
        if path.stat().st_mtime == 0:
            with path.open("r+b") as file:
                file.write(b"x")
                file.truncate(size)

    if what == "file":
        with pytest.raises(TransferIncompleteError, match="f was changed while it was read"):
            upload_file(plane, path, f"{remote}/f", progress=change)
    else:
        read = tarfile.copyfileobj
        monkeypatch.setattr(tarfile, "copyfileobj", lambda *parts, **options: (read(*parts, **options), change()))
        with pytest.raises(TransferIncompleteError, match="f was changed while it was read"):
            upload_directory(plane, source, remote)
    assert not plane.script(f"ls -A {remote} 2>/dev/null").stdout
    assert upload_directory(plane, source, remote).files == 2


@pytest.mark.parametrize("arrives", ["before", "after", "both"])
@pytest.mark.parametrize("existing", [True, False])
def test_a_request_that_is_executed_after_it_was_given_up_leaves_nothing_beside_the_target(
    plane, source, remote, monkeypatch, existing, arrives
):
    if existing:
        write_file(plane, f"{remote}/f", "g")
    write, requests = plane.write, []

    def lose(path, *_, **options):
        requests.append((path, b"part", options))
        if arrives != "after":
            write(path, b"part", **options)
        raise UnreachableError("The connection was lost.")

    monkeypatch.setattr(plane, "write", lose)
    with pytest.raises(UnreachableError):
        upload_file(plane, source / "f", f"{remote}/f")
    if arrives != "before":
        for path, content, options in requests:
            write(path, content, **options)
    assert plane.script(f"ls -A {remote}").stdout == ("f\n" if existing else "")
    monkeypatch.undo()
    upload_file(plane, source / "f", f"{remote}/f")
    assert plane.script(f"ls -A {remote}; cat {remote}/f").stdout == "f\nf"


def test_a_file_that_grows_while_it_is_sent_is_whole_up_to_its_size(plane, tmp_path, remote):
    path = tmp_path / "log"
    path.write_bytes(bytes(3_000_000))

    def grow(*_):
        with path.open("ab") as file:
            file.write(b"more")

    assert upload_file(plane, path, remote, progress=grow).size == 3_000_000
    assert plane.stat(remote).size == 3_000_000


def test_a_file_that_grows_while_it_is_packed_is_whole_up_to_its_size(plane, source, remote, monkeypatch):
    (source / "f").write_bytes(os.urandom(3_000_001))
    read = tarfile.copyfileobj

    def grow(*parts, **options):
        read(*parts, **options)
        with (source / "f").open("ab") as file:
            file.write(b"more")

    monkeypatch.setattr(tarfile, "copyfileobj", grow)
    content = (source / "f").read_bytes()
    upload_directory(plane, source, remote)
    assert plane.read(f"{remote}/f") == content


@pytest.mark.parametrize("existing", [True, False])
def test_directories_that_are_not_empty_keep_their_dates(plane, tmp_path, remote, existing):
    (tmp_path / "s/a/b").mkdir(parents=True)
    (tmp_path / "s/a/b/f").write_text("x")
    for name in ("s/a/b", "s/a", "s"):
        os.utime(tmp_path / name, (10**9, 10**9))
    if existing:
        plane.script(f"mkdir {remote}")
    upload_directory(plane, tmp_path / "s", remote)
    dates = plane.script(f"cd {remote} && stat -c %Y a a/b .").stdout.split()
    assert dates[:2] == ["1000000000"] * 2
    assert existing or dates[2] == "1000000000"


def test_a_file_that_shrinks_while_it_is_packed_is_packed_again(plane, remote, tmp_path, monkeypatch):
    plane.script(f"mkdir {remote}; echo content >{remote}/f; mkdir {remote}.bin")
    write_file(
        plane, f"{remote}.bin/tar", "#!/bin/sh\n/bin/tar \"$@\"\necho 'tar: ./f: File shrank by 3 bytes' >&2; exit 1\n"
    )
    plane.script(f"chmod +x {remote}.bin/tar")
    script = plane.script
    monkeypatch.setattr(plane, "script", lambda text, **options: script(f"PATH={remote}.bin:$PATH\n{text}", **options))
    with pytest.raises(TransferIncompleteError, match="File shrank"):
        download_directory(plane, remote, tmp_path / "back")


def test_an_image_without_tar_is_named(plane, source, remote, monkeypatch):
    script = plane.script
    monkeypatch.setattr(plane, "script", lambda text, **options: script(f"PATH=/nowhere\n{text}", **options))
    with pytest.raises(Exception, match="the image has no tar. Transfers need bash, coreutils, findutils, grep"):
        upload_directory(plane, source, remote)


def test_what_the_user_must_not_read_or_write_is_named(plane, source, tmp_path, remote):
    plane.script(f"mkdir {remote}; echo x >{remote}/secret; chmod 600 {remote}/secret", user="root")
    with pytest.raises(TransferError, match="secret: Cannot open: Permission denied"):
        download_directory(plane, remote, tmp_path / "back")
    with pytest.raises(TransferError, match="user must not read .*secret"):
        download_file(plane, f"{remote}/secret", tmp_path / "back")
    for upload in (
        lambda: upload_file(plane, source / "f", f"{remote}/f"),
        lambda: upload_directory(plane, source, remote),
        lambda: upload_directory(plane, source, f"{remote}/new/deep"),
        lambda: write_file(plane, f"{remote}/f", "f"),
    ):
        with pytest.raises(TransferError, match="user must not write to the directory"):
            upload()
    assert not (tmp_path / "back").exists()


def test_what_has_no_content_cannot_be_downloaded_alone(plane, tmp_path, remote):
    plane.script(f"mkdir {remote}; mkfifo {remote}/pipe")
    with pytest.raises(TransferError, match="pipe is a device, a pipe or a socket"):
        download_file(plane, f"{remote}/pipe", tmp_path / "pipe")
    plane.script(f"ln -s nowhere {remote}/dangling")
    with pytest.raises(NotFoundError, match="leads to nothing"):
        download_file(plane, f"{remote}/dangling", tmp_path / "x")
    assert os.listdir(tmp_path) == []


def test_parallel_transfers_to_one_new_directory_all_arrive(plane, tmp_path, remote):
    from concurrent.futures import ThreadPoolExecutor

    def upload(number):
        tree = tmp_path / str(number) / "sub"
        tree.mkdir(parents=True)
        (tree / str(number)).write_text("x")
        for _ in range(10):
            try:
                return upload_directory(plane, tree.parent, remote)
            except TransferIncompleteError:
                continue
        raise AssertionError("it never succeeded")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upload, range(4)))
    assert sorted(entry.name for entry in plane.list(f"{remote}/sub")) == ["0", "1", "2", "3"]
