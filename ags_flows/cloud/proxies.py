"""Proxies of the environment, with one rule for both planes.

The HTTP clients below (requests, pyqwest, httpx) read `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` by
different rules, and some of them send requests to this machine's loopback interface through a proxy. So the proxy of
each URL is determined here, and passed to the client explicitly.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from importlib.util import find_spec
from urllib.parse import SplitResult, urlsplit

from ags_flows.errors import ConfigurationError

SCHEMES = ("http", "https", "socks5", "socks5h")

SOCKS_MODULES = ("socks", "socksio")
"""Of the HTTP clients of both planes: requests and httpx need one each."""


def proxy_for(url: str) -> str | None:
    """Return the URL of the proxy for a URL, or None for a direct connection.

    Variables in lower case take precedence over upper case, and `http_proxy` or `https_proxy` over `all_proxy`.
    Loopback hosts never have a proxy. An entry of `no_proxy` is `*`, a domain (which includes its subdomains),
    an IP address or a network such as `10.0.0.0/8`, the first three optionally with a port.

    Raises:
        ConfigurationError: The variable's value is not the URL of a proxy, or packages for SOCKS proxies are missing.

    Example:
        ```python
        assert proxy_for("http://127.0.0.1:8600") is None
        ```
    """
    target = urlsplit(url)
    name, value = _variable(f"{target.scheme}_proxy", "all_proxy")
    if not value or is_loopback(target.hostname or "") or _is_excluded(target):
        return None
    proxy = value if "://" in value else f"http://{value}"
    if not _is_proxy(proxy):
        raise ConfigurationError(
            f"{name} is not the URL of a proxy.",
            hint=f"Write a URL such as http://proxy.example:3128; its scheme is one of {', '.join(SCHEMES)}.",
        )
    if proxy.lower().startswith("socks") and (missing := [one for one in SOCKS_MODULES if find_spec(one) is None]):
        raise ConfigurationError(
            f"{name} is a SOCKS proxy, for which Python packages are missing: {', '.join(missing)}.",
            hint="Install them with pip install pysocks socksio, or use an HTTP proxy.",
        )
    return proxy


def shown_proxy(url: str) -> str | None:
    """Return the proxy for a URL as messages name it: without a user and a password."""
    proxy = proxy_for(url)
    if proxy is None:
        return None
    parts = urlsplit(proxy)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def is_loopback(host: str) -> bool:
    """Return True if a host is this machine's loopback interface, in any spelling that connects to it."""
    host = host.lower().rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            # Short forms such as 127.1.
            address = ipaddress.ip_address(socket.inet_aton(host))
        except OSError:
            return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def _variable(*names: str) -> tuple[str, str]:
    for name in names:
        for spelling in (name, name.upper()):
            if value := os.environ.get(spelling, "").strip():
                return spelling, value
    return names[0], ""


def _is_proxy(url: str) -> bool:
    parts = urlsplit(url)
    try:
        return parts.scheme.lower() in SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_excluded(target: SplitResult) -> bool:
    entries = [entry.strip().lower() for entry in _variable("no_proxy")[1].split(",")]
    return any(_matches(entry, target) for entry in entries if entry)


def _matches(entry: str, target: SplitResult) -> bool:
    host = (target.hostname or "").lower().rstrip(".")
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        pass
    named = urlsplit(f"//{entry}")
    try:
        port = named.port
    except ValueError:
        return False
    if port is not None and port != (target.port or {"http": 80, "https": 443}.get(target.scheme)):
        return False
    domain = (named.hostname or "").removeprefix("*").strip(".")
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))
