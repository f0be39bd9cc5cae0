"""Kernels that are installed on this machine as Jupyter knows them: R and Java."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_LANGUAGES = ("r", "java")


@dataclass(frozen=True)
class KernelSpec:
    """A kernel's specification.

    Attributes:
        directory: Where its files are, as a sandbox sees them; ``{resource_dir}`` in a specification.
        argv: The command.
        env: Its environment.
        by_signal: Whether SIGINT interrupts it, and not a message.
    """

    directory: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    by_signal: bool = True


@cache
def installed_kernels() -> dict[str, KernelSpec]:
    """Return the first kernel of each language."""
    from jupyter_client.kernelspec import KernelSpecManager

    found: dict[str, KernelSpec] = {}
    for directory in sorted(KernelSpecManager().find_kernel_specs().values()):
        try:
            spec = json.loads(Path(directory, "kernel.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        language = str(spec.get("language", "")).lower()
        if language in _LANGUAGES and spec.get("argv"):
            # R prints characters that its locale does not have as numbers.
            env = {"LC_CTYPE": "C.UTF-8"} if language == "r" else {}
            env |= {str(name): str(value) for name, value in (spec.get("env") or {}).items()}
            by_signal = spec.get("interrupt_mode", "signal") == "signal"
            found.setdefault(language, KernelSpec(directory, tuple(spec["argv"]), env, by_signal))
    return found
