"""The exception for every request that the emulated platform refuses."""

from __future__ import annotations


class Refusal(Exception):
    """A request that the platform refuses.

    Args:
        code: The Cloud API's error code, such as ``ResourceNotFound.SandboxTool``.
        message: One English sentence for the caller.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        """Return ``code: message``."""
        return f"{self.code}: {self.message}"
