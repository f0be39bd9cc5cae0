"""Checks of files."""

from __future__ import annotations

import os

from ags_flows.errors import NotFoundError
from ags_flows.verify.account import Account
from ags_flows.verify.check import Different, Group, expect

GROUP = Group("files")


@GROUP.check
def bytes_come_back(account: Account) -> None:
    """Bytes come back as they were written."""
    data = bytes(range(256)) * 64
    account.plane().write("verify/bytes.bin", data)
    expect(account.plane().read("verify/bytes.bin") == data, "other bytes")


@GROUP.check
def large_file_comes_back(account: Account) -> None:
    """A file of 8 MiB comes back whole."""
    data = os.urandom(8 << 20)
    account.plane().write("verify/large.bin", data)
    expect(account.plane().read("verify/large.bin") == data, "other bytes")


@GROUP.check
def ranges_are_served(account: Account) -> str:
    """A range of a file is served."""
    account.plane().write("verify/range.txt", b"0123456789")
    part = account.plane().read_range("verify/range.txt", 3, 4)
    account.answers["files.ranges"] = part is not None
    expect(part == b"3456", "the whole file" if part is None else repr(part))
    return "bytes 3 to 6"


@GROUP.check
def names_may_be_of_any_language(account: Account) -> None:
    """File names may have spaces and letters of any language."""
    name = "verify/数据 ü.txt"
    account.plane().write(name, b"x")
    expect(account.plane().read(name) == b"x", "other bytes")


@GROUP.check
def directories_are_listed(account: Account) -> None:
    """A directory is listed with sizes."""
    account.plane().write("verify/listed/one.txt", b"12345")
    found = {entry.name: entry.size for entry in account.plane().list("verify/listed")}
    expect(found == {"one.txt": 5}, found)


@GROUP.check
def files_belong_to_the_user(account: Account) -> None:
    """A written file belongs to the user that runs commands."""
    account.plane().write("verify/owned.txt", b"x")
    owner = account.plane().run("stat -c %U verify/owned.txt; id -un").stdout.split()
    expect(len(set(owner)) == 1, owner)


@GROUP.check
def missing_file_is_told(account: Account) -> None:
    """A missing file is a clear error."""
    try:
        account.plane().read("verify/missing.txt")
    except NotFoundError:
        return
    raise Different("it was read")


@GROUP.check
def files_are_moved_and_removed(account: Account) -> None:
    """Files are moved and removed."""
    plane = account.plane()
    plane.write("verify/from.txt", b"x")
    plane.move("verify/from.txt", "verify/to.txt")
    expect(plane.read("verify/to.txt") == b"x", "other bytes")
    plane.remove("verify/to.txt")
    expect(not plane.exists("verify/to.txt"), "it is still there")
