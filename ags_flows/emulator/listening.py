"""The port of the emulator: a socket that listens, and connections that speak HTTP or HTTPS on it."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

logger = logging.getLogger("ags_flows.emulator")

BACKLOG = 4096
_HANDSHAKE = b"\x16"
"""The first byte of a TLS connection; no HTTP request begins with it."""


def is_loopback(host: str) -> bool:
    """Return True if an IP address or name belongs to the loopback interface."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        OSError: The port is taken, or needs more rights. The message has host and port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only where the protocol is named: without it each response took 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    except BaseException:
        listener.close()
        raise
    return listener


class Doorman:
    """Accepts connections and looks at their first byte: TLS is decrypted, all else is plain HTTP.

    Args:
        listener: The socket.
        protocol: Makes the protocol of a connection.
        context: How TLS is spoken.
    """

    def __init__(
        self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol], context: ssl.SSLContext
    ) -> None:
        self._listener = listener
        self._protocol = protocol
        self._context = context
        self._entering: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Accept until it is cancelled; connections that have been accepted go on."""
        loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        try:
            while True:
                try:
                    connection, _ = await loop.sock_accept(self._listener)
                except OSError as error:
                    # Out of descriptors, or the client has gone away again.
                    logger.warning("a connection was not accepted: %s", error)
                    await asyncio.sleep(0.05)
                    continue
                task = loop.create_task(self._enter(connection))
                self._entering.add(task)
                task.add_done_callback(self._entering.discard)
        finally:
            for task in self._entering:
                task.cancel()
            await asyncio.gather(*self._entering, return_exceptions=True)

    async def _enter(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            first = await _first_byte(connection)
            if first:
                context = self._context if first == _HANDSHAKE else None
                await loop.connect_accepted_socket(self._protocol, connection, ssl=context)
                return
        except OSError:
            # It has gone away, or does not trust our certificate.
            pass
        except asyncio.CancelledError:
            connection.close()
            raise
        connection.close()


async def _first_byte(connection: socket.socket) -> bytes:
    """Return the first byte, which stays to be read; nothing at the end of the connection."""
    loop = asyncio.get_running_loop()
    while True:
        with suppress(BlockingIOError):
            return connection.recv(1, socket.MSG_PEEK)
        readable = loop.create_future()
        loop.add_reader(connection, readable.set_result, None)
        try:
            await readable
        finally:
            loop.remove_reader(connection)
