"""The way out of a sandbox: an HTTP proxy that this process serves on a port inside."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Coroutine
from typing import Any
from urllib.parse import urlsplit

from ags_flows.emulator.reach import EVERYWHERE, Reach

HEAD_LIMIT = 64 * 1024
HEAD_TIMEOUT = 30.0
CONNECT_TIMEOUT = 30.0
PIECE = 64 * 1024

_LOCAL = "localhost,127.0.0.1,0.0.0.0,::1"
_HOP = ("proxy-connection", "proxy-authorization", "connection", "keep-alive")


class _Refused(Exception):
    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Egress:
    """A forward proxy: CONNECT for encrypted connections, and plain HTTP. It reaches other machines, never this one.

    Args:
        listener: A socket that listens inside the sandbox; the proxy closes it.
        reach: Which machines it may go to.
        hostname: The host name of the sandbox: its programs use no proxy for it.
    """

    def __init__(self, listener: socket.socket, reach: Reach = EVERYWHERE, hostname: str = "") -> None:
        """Serve from now on, on the running loop."""
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._listener = listener
        self._reach = reach
        self._own = f"{_LOCAL},{hostname}" if hostname else _LOCAL
        listener.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting = self._start(self._accept())

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which programs in the sandbox find it."""
        names = {"http_proxy": self.url, "https_proxy": self.url, "no_proxy": self._own}
        return {**names, **{name.upper(): value for name, value in names.items()}}

    def change(self, reach: Reach) -> None:
        """Go to other machines from now on; what is open is cut."""
        if reach != self._reach:
            self._reach = reach
            for task in self._tasks - {self._accepting}:
                task.cancel()

    def close(self) -> None:
        """Cut all open connections and stop serving."""
        for task in list(self._tasks):
            task.cancel()
        # Its task may be waiting on it: the loop must forget it first.
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self) -> None:
        while True:
            try:
                connection, _ = await self._loop.sock_accept(self._listener)
            except OSError:
                # Out of descriptors, or the sandbox has gone.
                await asyncio.sleep(0.1)
                continue
            self._start(self._serve(connection))

    async def _serve(self, connection: socket.socket) -> None:
        writer: asyncio.StreamWriter | None = None
        onward: asyncio.StreamWriter | None = None
        try:
            reader, writer = await asyncio.open_connection(sock=connection, limit=HEAD_LIMIT)
            try:
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_TIMEOUT)
                host, port, opening = _read_head(head)
                answers, onward = await _connect(host, port, self._reach)
            except _Refused as refused:
                body = f"{refused.message}\n".encode()
                head = f"HTTP/1.1 {refused.status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                writer.write(head + body)
                await writer.drain()
                return
            if opening is None:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                onward.write(opening)
            await asyncio.gather(pass_on(reader, onward), pass_on(answers, writer))
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.TimeoutError):
            return
        finally:
            for end in (writer, onward):
                if end is not None:
                    end.transport.abort()
            if writer is None:
                connection.close()


def _read_head(head: bytes) -> tuple[str, int, bytes | None]:
    """Return host, port, and what to send on first; None for a tunnel."""
    lines = head.decode("latin-1").split("\r\n")
    try:
        method, target, version = lines[0].split(" ")
        if method == "CONNECT":
            parts = urlsplit(f"//{target}")
            if not parts.hostname or parts.port is None:
                raise ValueError(target)
            return parts.hostname, parts.port, None
        parts = urlsplit(target)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(target)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        raise _Refused("400 Bad Request", f"not a request to a proxy: {lines[0][:200]}") from None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    kept = [line for line in lines[1:] if line and line.partition(":")[0].strip().lower() not in _HOP]
    # One request a connection: the next one may be for another host.
    opening = "\r\n".join([f"{method} {path} {version}", *kept, "Connection: close", "", ""])
    return host, port, opening.encode("latin-1")


async def _connect(host: str, port: int, reach: Reach) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _Refused("502 Bad Gateway", f"{host}: {error}") from error
    addresses = [address for *_, address in found]
    if any(_is_own(str(address[0])) for address in addresses):
        raise _Refused("403 Forbidden", f"{host} is this machine: a sandbox reaches other machines only")
    addresses = [address for address in addresses if reach.permits(host, str(address[0]))]
    if not addresses:
        raise _Refused("403 Forbidden", f"{host} may not be reached: the sandbox's network settings deny it")
    failure: Exception | None = None
    for address in addresses:
        try:
            reader, writer = await asyncio.wait_for(
                asyncio.open_connection(str(address[0]), port, limit=HEAD_LIMIT), CONNECT_TIMEOUT
            )
        except (OSError, asyncio.TimeoutError) as error:
            failure = error
            continue
        # An IP address of this machine other than its loopback: both ends are the same.
        if writer.get_extra_info("sockname")[0] == writer.get_extra_info("peername")[0]:
            writer.transport.abort()
            raise _Refused("403 Forbidden", f"{host} is this machine: a sandbox reaches other machines only")
        return reader, writer
    raise _Refused("502 Bad Gateway", f"{host}:{port}: {failure or 'no IP address'}")


def _is_own(address: str) -> bool:
    known = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(known, ipaddress.IPv6Address) and known.ipv4_mapped is not None:
        known = known.ipv4_mapped
    # Link-local is where clouds keep the credentials of their machines.
    return known.is_loopback or known.is_unspecified or known.is_link_local or known.is_multicast


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write what is read, until the end of the stream."""
    with contextlib.suppress(OSError):
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
