"""The code interpreter of one sandbox: its contexts and their kernels."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ags_flows.emulator.code_interpreter.api import Api
from ags_flows.emulator.code_interpreter.context import Context
from ags_flows.emulator.code_interpreter.inner import InnerServer
from ags_flows.emulator.code_interpreter.languages import DEFAULTS, language_named
from ags_flows.emulator.code_interpreter.places import Places, host_places, isolated_places
from ags_flows.emulator.sandbox.plain import PlainSandbox

PORT = 49999


class CodeInterpreter:
    """Contexts, executions and their kernels, of one sandbox.

    Kernels start with the first use of their context, and keep its state. Tokens are not checked here: the gateway
    does that where AuthMode requires it. Made on the event loop that serves `app`.

    Args:
        sandbox: Where the kernels run; it has been given `interpreter_binds()`.
        env: The environment of all kernels.

    Attributes:
        app: The ASGI application.
    """

    def __init__(self, sandbox: Any, *, env: Mapping[str, str] | None = None) -> None:
        """Start to listen inside of the sandbox; start no kernel."""
        self._sandbox = sandbox
        self._env = {"E2B_SANDBOX": "true", "E2B_SANDBOX_ID": sandbox.spec.sandbox_id, **(env or {})}
        plain = isinstance(sandbox, PlainSandbox)
        self._places: Places = host_places() if plain else isolated_places()
        self._zmq: Any = None
        self._closed = False
        self._contexts: dict[str, Context] = {}
        self._defaults: dict[str, Context] = {}
        for language in DEFAULTS:
            self._defaults[language] = self._new(language, None)
        self.app = Api(self)
        # In a plain directory the port would be the host's own.
        self._inner = None if plain else InnerServer(sandbox, PORT, self.app)

    @property
    def contexts(self) -> list[Context]:
        """The contexts, in the order in which they were made."""
        return list(self._contexts.values())

    def context(self, context_id: str) -> Context | None:
        """Return a context by its id."""
        return self._contexts.get(context_id)

    def default(self, language: str | None) -> Context:
        """Return the default context of a language."""
        name = language_named(language)
        if name not in self._defaults:
            self._defaults[name] = self._new(name, None)
        return self._defaults[name]

    async def create(self, language: str | None, cwd: str | None) -> Context:
        """Return a new context whose kernel runs.

        Raises:
            NoKernel: There is no kernel for the language.
            KernelFailed: It did not start.
            OSError: The sandbox has ended, or its disk is full.
        """
        context = self._new(language_named(language), cwd)
        try:
            await context.start()
        except BaseException:
            await self.remove(context)
            raise
        return context

    async def remove(self, context: Context) -> None:
        """End a context; a default one is created again at its next use."""
        self._contexts.pop(context.context_id, None)
        for language, known in list(self._defaults.items()):
            if known is context:
                del self._defaults[language]
        await context.close()

    @property
    def ended(self) -> bool:
        """Whether the sandbox has ended, or is about to."""
        return self._closed or not self._sandbox.alive

    async def close(self) -> None:
        """End everything; responses that are being sent break off, as they do when a sandbox is killed."""
        if self._closed:
            return
        self._closed = True
        if self._inner is not None:
            await self._inner.close()
        await asyncio.gather(*(context.close(with_sandbox=True) for context in self.contexts))
        self._contexts.clear()
        if self._zmq is not None:
            # Waits for the library's threads.
            await asyncio.to_thread(self._zmq.destroy, 0)

    def _new(self, language: str, cwd: str | None) -> Context:
        context = Context(self._sandbox, self._places, language, cwd, self._env, self._zmq_context)
        self._contexts[context.context_id] = context
        return context

    def _zmq_context(self) -> Any:
        if self._zmq is None:
            import zmq.asyncio

            self._zmq = zmq.asyncio.Context(io_threads=1)
            # Messages that wait in each socket; the default, 1,000, is gigabytes of a cell that prints without end.
            self._zmq.setsockopt(zmq.RCVHWM, 4)
        return self._zmq

    async def __aenter__(self) -> CodeInterpreter:
        """Return itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        with suppress(OSError):
            await self.close()
