"""Sockets in a sandbox's network namespace, made for a process that is not in it."""

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

from .isolation import isolation

CONNECT_TIMEOUT = 10.0
BACKLOG = 128

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

# Makes a socket inside of a network namespace and hands it over, for whoever may not enter it by a thread.
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
            connection = _by_thread(init, lambda: socket.create_connection(("127.0.0.1", port), CONNECT_TIMEOUT))
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
        return _by_thread(init, lambda: socket.create_server(("127.0.0.1", port), backlog=BACKLOG))
    return _by_process(init, "listen", port)


def _by_thread(init: int, make: Callable[[], socket.socket]) -> socket.socket:
    """Make it in a thread that enters the network namespace and ends there: a namespace belongs to a thread."""
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def work() -> None:
        try:
            namespace = os.open(f"/proc/{init}/ns/net", os.O_RDONLY)
            try:
                if _libc.setns(namespace, _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            finally:
                os.close(namespace)
            made.append(make())
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if not made:
        raise failed[0]
    return made[0]


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
