"""Which certificates are trusted: those of `SSL_CERT_FILE` or `REQUESTS_CA_BUNDLE`, else those of the package certifi.

The SDKs differ in which of these variables they read, and the one of Tencent Cloud reads none.
"""

from __future__ import annotations

import os
import ssl
from functools import lru_cache


def certificate_file() -> str | None:
    """Return the file of trusted certificates that the environment names, or None."""
    return next((value for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE") if (value := os.environ.get(name))), None)


def verification(verify: bool) -> bool | ssl.SSLContext:
    """Return how an httpx client checks certificates.

    Args:
        verify: Whether it checks them at all.
    """
    file = certificate_file()
    return _context(file) if verify and file else verify


@lru_cache(8)
def _context(file: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=file)
