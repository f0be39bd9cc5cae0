"""One request to a kernel, and which of the kernel's messages belong to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ags_flows.emulator.code_interpreter.backlog import Backlog

if TYPE_CHECKING:
    from ags_flows.emulator.code_interpreter.kernel import Kernel

QUIET = 5.0
"""Seconds without a message after which an execution ends that the kernel replied to but never reported as idle."""


class Execution:
    """One request to a kernel, and its output.

    Args:
        code: The code.
        silent: Whether it counts and shows nothing.
        mark: Text that the kernel prints after all output of this request, or None: then all output has come when
            the kernel is idle.

    Attributes:
        forget: Called with it at its end.
        kernel: The kernel that it was sent to.
        messages: Pairs of a message's type and content; None at the end, an exception when the kernel ended before.
        began: Whether the kernel executes its code. One that is silent only ends.
        ended: Whether it is done.
    """

    def __init__(self, code: str, *, silent: bool = False, mark: str | None = None) -> None:
        self.code = code
        self.silent = silent
        self.mark = mark
        self.forget: Callable[[Execution], object] = lambda execution: None
        self.kernel: Kernel | None = None
        self.messages = Backlog()
        self.began = asyncio.Event()
        self.ended = False
        self._failure: dict[str, Any] | None = None
        self._latest = 0.0
        self._watched = False

    def take(self, kind: str, content: dict[str, Any]) -> None:
        """Take a message."""
        if self.ended:
            return
        self._latest = asyncio.get_running_loop().time()
        if kind == "execute_input":
            # A kernel that is only busy may still ignore an interrupt.
            self.began.set()
        if kind == "status":
            if content["execution_state"] == "idle" and self.mark is None:
                self.end(None)
        elif kind == "execute_reply":
            # Other replies come as output too. An error does not always.
            if content.get("status") == "error" and self._failure is None:
                self._failure = content
            if self.mark is None:
                self.answered()
        else:
            if kind == "error":
                self._failure = {}
            if kind == "stream" and self.mark is not None and self.mark in content["text"]:
                content = {**content, "text": content["text"].partition(self.mark)[0]}
                if content["text"]:
                    self.messages.put_nowait((kind, content))
                self.end(None)
                return
            self.messages.put_nowait((kind, content))

    def answered(self) -> None:
        """Note the kernel's reply. The idle state must follow soon; after a silence, end without it."""
        if not self._watched:
            self._watched = True
            self._watch()

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        if self.ended:
            return
        if loop.time() - self._latest >= QUIET:
            self.end(None)
        else:
            loop.call_later(QUIET, self._watch)

    def end(self, reason: BaseException | None) -> None:
        """End it: nothing more comes."""
        if not self.ended:
            self.ended = True
            self.began.set()
            if self._failure:
                self.messages.put_nowait(("error", self._failure))
            self.messages.put_nowait(reason)
            self.forget(self)
