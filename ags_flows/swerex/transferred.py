"""Exceptions that were raised in the sandbox and that its server reports."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import Any

from swerex import exceptions as of_swerex
from swerex.exceptions import SwerexException

_PLACES = {"builtins": builtins, "swerex.exceptions": of_swerex}


def exception_of(told: Mapping[str, Any]) -> Exception:
    """Return the exception that the server reports.

    What runs in a sandbox is not trusted, and any program may be the server. So the name is looked up only among the
    exceptions of Python and of SWE-ReX. Nothing else is imported or called for it.
    """
    path, message = str(told.get("class_path") or ""), str(told.get("message") or "")
    module, _, name = path.rpartition(".")
    known = getattr(_PLACES.get(module), name, None)
    error: Exception = SwerexException(f"{name}: {message}" if name else message)
    if isinstance(known, type) and issubclass(known, Exception):
        try:
            error = known(message)
        except TypeError:
            # Such as UnicodeDecodeError, which needs more than a message.
            pass
    extra = told.get("extra_info")
    error.extra_info = dict(extra) if isinstance(extra, Mapping) else {}  # type: ignore[attr-defined]
    return error
