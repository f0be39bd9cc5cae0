"""Paths in a sandbox that begin with `~`. Relative paths begin at the user's home.

Only `~` and what begins with `~/` mean the home. Any other name that begins with `~` is a name: programs would take it
for the home of another user, and envd refuses it.
"""

from __future__ import annotations


def at_home(path: str) -> str:
    """Return a path that does not begin with `~`: relative instead of in the home."""
    return as_name(path[2:].lstrip("/") or "." if path == "~" or path.startswith("~/") else path)


def as_name(path: str) -> str:
    """Return a path in which a `~` at the beginning is that of a name."""
    return f"./{path}" if path.startswith("~") else path
