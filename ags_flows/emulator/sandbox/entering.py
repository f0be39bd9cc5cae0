"""What is done in a sandbox's namespaces for a process that is not in them: sockets, mounts."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ags_flows.emulator.sandbox.isolation import isolation

R = TypeVar("R")

CONNECT_TIMEOUT = 10.0
BACKLOG = 128

_CLONE_FS, _CLONE_NEWNS, _CLONE_NEWNET = 0x200, 0x20000, 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

# Makes a socket inside of a network namespace and hands it over, for a process that may not enter it by a thread.
_HANDED_OVER = """
import socket, sys
ours = socket.socket(fileno=int(sys.argv[1]))
theirs = socket.socket()
try:
    if sys.argv[2] == "listen":
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        theirs.bind(("127.0.0.1", int(sys.argv[3])))
        theirs.listen(128)
    else:
        theirs.settimeout(10)
        theirs.connect(("127.0.0.1", int(sys.argv[3])))
except OSError as error:
    ours.send(str(error.errno or 111).encode())
else:
    socket.send_fds(ours, [b"ok"], [theirs.fileno()])
"""


def connect_inside(init: int, port: int) -> socket.socket:
    """Return a connection to 127.0.0.1 in the namespaces of a process; blocking.

    Raises:
        ConnectionRefusedError: Nothing listens there.
    """
    try:
        if isolation().root:
            connection = _in_thread(
                init, "net", _CLONE_NEWNET, lambda: socket.create_connection(("127.0.0.1", port), CONNECT_TIMEOUT)
            )
        else:
            connection = _by_process(init, "connect", port)
    except OSError as error:
        raise ConnectionRefusedError(errno.ECONNREFUSED, f"port {port}: {error.strerror or error}") from error
    connection.settimeout(None)
    return connection


def listen_inside(init: int, port: int) -> socket.socket:
    """Return a socket that listens on 127.0.0.1 in the namespaces of a process.

    Raises:
        OSError: The port is taken.
    """
    if isolation().root:
        return _in_thread(
            init, "net", _CLONE_NEWNET, lambda: socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
        )
    return _by_process(init, "listen", port)


def open_low_ports(init: int) -> None:
    """Let the processes of a network namespace listen on ports below 1024 too; for root only.

    Raises:
        OSError: The kernel refuses it.
    """
    # The namespace of the thread counts, not that of the file's mount.
    setting = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
    _in_thread(init, "net", _CLONE_NEWNET, lambda: Path(setting).write_text("0"))


def remount_inside(init: int, target: str, flags: int, data: str) -> None:
    """Change the options of a mount in the namespaces of a process; for root only.

    Raises:
        OSError: The kernel refuses it.
    """

    def remount() -> None:
        if _libc.mount(None, target.encode(), None, ctypes.c_ulong(flags), data.encode()) != 0:
            raise OSError(ctypes.get_errno(), "mount", target)

    _in_thread(init, "mnt", _CLONE_NEWNS, remount)


def _in_thread(init: int, name: str, kind: int, work: Callable[[], R]) -> R:
    """Do something in a thread that enters a namespace and ends there: namespaces belong to threads."""
    done: list[R] = []
    failed: list[OSError] = []

    def enter() -> None:
        try:
            namespace = os.open(f"/proc/{init}/ns/{name}", os.O_RDONLY)
            try:
                # The file system's root is shared by all threads, until one of them asks for its own.
                if kind == _CLONE_NEWNS and _libc.unshare(_CLONE_FS) != 0:
                    raise OSError(ctypes.get_errno(), "unshare")
                if _libc.setns(namespace, kind) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            finally:
                os.close(namespace)
            done.append(work())
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


def _by_process(init: int, what: str, port: int) -> socket.socket:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        enter = ["nsenter", "--target", str(init), "-U", "--preserve-credentials", "-n", "--"]
        arguments = [str(theirs.fileno()), what, str(port)]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [*enter, sys.executable, "-I", "-S", "-c", _HANDED_OVER, *arguments],
                pass_fds=[theirs.fileno()],
                check=False,
                timeout=2 * CONNECT_TIMEOUT,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        theirs.close()
        told, descriptors, _, _ = socket.recv_fds(ours, 16, 1)
    if descriptors:
        return socket.socket(fileno=descriptors[0])
    code = int(told) if told.isdigit() else errno.ECONNREFUSED
    raise OSError(code, os.strerror(code))
