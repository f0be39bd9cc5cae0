"""The writable file system that a sandbox begins with: homes, users, and a plain /etc."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from ags_flows.emulator.removal import remove_tree

UID = {"root": 0, "user": 1000}
"""The users of a sandbox and their ids; homes are /root and /home/user."""

HOME = {"root": "/root", "user": "/home/user"}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/sandbox/bin"
PYTHON = "/opt/python"
"""Where the emulator's own Python appears when the host has none in /usr."""

READ_ONLY = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
ETC_DIRECTORIES = (
    *("/etc/ssl", "/etc/ca-certificates", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/R"),
    # Where Debian keeps the settings of a JDK, without which it does not start.
    *sorted(map(str, Path("/etc").glob("java-*-openjdk"))),
)
ETC_FILES = ("ld.so.cache", "ld.so.conf", "localtime", "ca-certificates.conf", "mime.types", "services", "protocols")

_DIRECTORIES = {
    "dev": 0o755,
    "proc": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "home/user": 0o755,
    "root": 0o700,
    "tmp": 0o1777,
    "var": 0o755,
    "var/tmp": 0o1777,
    "var/log": 0o755,
    "run": 0o755,
    "opt": 0o755,
    "opt/sandbox": 0o755,
    "opt/sandbox/bin": 0o755,
    "etc/pam.d": 0o755,
    "srv": 0o755,
    "mnt": 0o755,
    "data": 0o777,
    "workspace": 0o777,
    "logs": 0o777,
}
_OF_USER = ("home/user", "home/user/.bashrc", "home/user/.profile", "workspace", "data", "logs")

_PROFILE = f"""\
export PATH="{PATH}"
if [ -d {PYTHON}/bin ]; then PATH="$PATH:{PYTHON}/bin"; fi
umask 022
"""
_BASHRC = """\
case $- in *i*) ;; *) return ;; esac
PS1='\\u@\\h:\\w\\$ '
"""
_LOGIN = '[ -n "$BASH" ] && [ -f ~/.bashrc ] && . ~/.bashrc'
# Where all users are one there is no su, and no other user to become. The host's sudo, if there is one, has no setuid
# bit here; su is a copy that has it, and PAM asks for no password.
_SUDO = """\
#!/bin/bash
user=root login=
while [ $# -gt 0 ]; do
  case "$1" in
    -u) user=$2; shift 2 ;;
    -i) login=-; shift ;;
    --) shift; break ;;
    -*) shift ;;
    *=*) export "$1"; shift ;;
    *) break ;;
  esac
done
[ $# -gt 0 ] || set -- bash
if [ "$(id -un)" = "$user" ] && [ -z "$login" ] || [ ! -e /opt/sandbox/bin/su ]; then exec "$@"; fi
exec /opt/sandbox/bin/su $login -s /bin/bash "$user" -c 'exec "$0" "$@"' -- "$@"
"""
_PAM = "auth sufficient pam_permit.so\naccount sufficient pam_permit.so\nsession sufficient pam_permit.so"


@functools.cache
def program(name: str) -> str:
    """Return the path of a program that starts processes in sandboxes: the sandbox's own PATH may be any."""
    return shutil.which(name, path=PATH) or name


def build_skeleton(target: Path, hostname: str, root: bool) -> None:
    """Write a fresh file system into an empty directory.

    Args:
        target: The directory.
        hostname: The sandbox's name.
        root: Whether users have separate ids; else both have the one id that is mapped.
    """
    for name, mode in _DIRECTORIES.items():
        _make_directory(target / name, mode)
    for name in READ_ONLY:
        source, place = Path(name), target / name[1:]
        if os.path.lexists(place):
            continue
        if source.is_symlink():
            place.symlink_to(os.readlink(source))
        elif source.is_dir():
            place.mkdir(exist_ok=True)
    for name in ETC_DIRECTORIES:
        # In a tmpfs it is there already: the host's, read-only.
        if os.path.isdir(name) and not (target / name[1:]).exists():
            _make_directory(target / name[1:], 0o755)
    named = {"etc/hostname": hostname, "etc/hosts": f"127.0.0.1 localhost {hostname}\n::1 localhost"}
    for name, text in named.items():
        _write(target / name, f"{text}\n".encode(), 0o644)
    for name, data, mode in _files(root):
        if isinstance(data, str):
            os.symlink(data, target / name)
        else:
            _write(target / name, data, mode)
    if root:
        for name in _OF_USER:
            os.chown(target / name, UID["user"], UID["user"])


def make_mount_points(target: Path, points: Iterable[str], files: Iterable[str] = ()) -> None:
    """Make directories and files, none of them through a link, in a saved file system for what is mounted there.

    Root inside may have put a link in the way: bubblewrap would follow it to the host and make directories there.

    Args:
        target: The file system. No sandbox may use it now.
        points: Absolute paths of directories; one that is a link on the host too is left as it is.
        files: Absolute paths of files.
    """
    for point in points:
        if not os.path.islink(point):
            _make_place(target, point)
    for file in files:
        place = _make_place(target, os.path.dirname(file)) / os.path.basename(file)
        if os.path.lexists(place) and (place.is_symlink() or not place.is_file()):
            remove_tree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
        place.touch()


def _make_place(target: Path, point: str) -> Path:
    """Make a directory below a file system, and replace anything on the way to it that is not a directory."""
    place = target
    for part in point.strip("/").split("/"):
        place = place / part
        if os.path.lexists(place) and (place.is_symlink() or not place.is_dir()):
            place.unlink()
        if not place.exists():
            _make_directory(place, 0o755)
    return place


@functools.cache
def _files(root: bool) -> list[tuple[str, bytes | str, int]]:
    """Return what is the same in all sandboxes: name, content or the aim of a link, mode."""
    # With one id for both, the first line decides what `whoami` prints.
    ids = UID if root else dict.fromkeys(UID, 0)
    users = [f"{name}:x:{ids[name]}:{ids[name]}::{HOME[name]}:/bin/bash" for name in ("user", "root")]
    texts = {
        "etc/passwd": "\n".join([*(users[::-1] if root else users), "nobody:x:65534:65534::/nonexistent:/bin/false"]),
        "etc/group": "\n".join(
            [f"root:x:0:\nuser:x:{ids['user']}:" if root else "user:x:0:\nroot:x:0:", "nogroup:x:65534:"]
        ),
        "etc/resolv.conf": "nameserver 127.0.0.1",
        "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns",
        "etc/profile": _PROFILE,
        "etc/shells": "/bin/sh\n/bin/bash",
        "etc/os-release": _os_release(),
        "home/user/.bashrc": _BASHRC,
        "home/user/.profile": _LOGIN,
        "root/.bashrc": _BASHRC,
        "root/.profile": _LOGIN,
        "etc/pam.d/su": _PAM,
        "etc/pam.d/su-l": _PAM,
    }
    files: list[tuple[str, bytes | str, int]] = [
        (name, text.rstrip("\n").encode() + b"\n", 0o644) for name, text in texts.items()
    ]
    # /usr belongs to the host.
    files.append(("opt/sandbox/bin/sudo", _SUDO.encode(), 0o755))
    if Path("/usr/bin/python3").exists():
        # Distributions leave this name to the user; images of sandboxes have it.
        files.append(("opt/sandbox/bin/python", "/usr/bin/python3", 0o777))
    copied = [("/etc/" + name, "etc/" + name, 0o644) for name in ETC_FILES]
    if root:
        copied.append(("/usr/bin/su", "opt/sandbox/bin/su", 0o4755))
    for source, name, mode in copied:
        # Names of certificates and libraries, nothing that is private; what is unreadable is left out.
        with contextlib.suppress(OSError):
            if os.path.islink(source) and not mode & 0o4000:
                files.append((name, os.readlink(source), mode))
            else:
                files.append((name, Path(source).read_bytes(), mode))
    return files


def python_prefix() -> Path | None:
    """Return this interpreter's installation where the host has no /usr/bin/python3, else None."""
    return None if Path("/usr/bin/python3").exists() else Path(sys.base_prefix)


def _make_directory(path: Path, mode: int) -> None:
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        # Something may be mounted there, which must not be changed.
        with contextlib.suppress(PermissionError):
            os.chmod(path, mode)
    else:
        os.chmod(path, mode)


def _write(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, data)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _os_release() -> str:
    try:
        return Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return "NAME=Linux\nID=linux"
