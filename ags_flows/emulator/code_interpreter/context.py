"""A context: a language, a directory, and a kernel that keeps its state from one execution to the next."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from ags_flows.emulator.code_interpreter.execution import Execution
from ags_flows.emulator.code_interpreter.kernel import Kernel, KernelFailed
from ags_flows.emulator.code_interpreter.languages import NoKernel, prepare, recipe_for, reset_variables, set_variables
from ags_flows.emulator.code_interpreter.places import Places

HOME = "/home/user"


class Restarted(Exception):
    """The context was restarted while it executed code."""


class Context:
    """A context.

    Attributes:
        context_id: Its id.
        language: Its language.
        cwd: The directory it was made for.
    """

    def __init__(
        self,
        sandbox: Any,
        places: Places,
        language: str,
        cwd: str | None,
        env: Mapping[str, str],
        zmq_context: Callable[[], Any],
    ) -> None:
        """Begin without a kernel; it starts with the first use."""
        self.context_id = str(uuid.uuid4())
        self.language = language
        self.cwd = cwd or HOME
        self._sandbox = sandbox
        self._places = places
        self._env = env
        self._zmq_context = zmq_context
        self._kernel: Kernel | None = None
        self._starting = asyncio.Lock()
        self._start_of_kernel: asyncio.Future[Kernel] | None = None
        self._closed = False
        self._abandoned: set[asyncio.Task[None]] = set()

    def describe(self) -> dict[str, str]:
        """Return it as clients see it."""
        return {"id": self.context_id, "language": self.language, "cwd": self.cwd}

    async def start(self) -> Kernel:
        """Return its kernel; start one if there is none or it has ended.

        Raises:
            NoKernel: There is no kernel for the language.
            KernelFailed: It did not start.
            OSError: The sandbox has ended, or its disk is full.
        """
        async with self._starting:
            if self._kernel is not None and not self._kernel.alive:
                await self._kernel.close(ConnectionError("the kernel has ended"))
                self._kernel = None
            if self._kernel is None:
                self._kernel = await self._start()
                first = prepare(self.language, {**self._env, "user.dir": self.cwd})
                if first is not None:
                    self._kernel.submit(first, silent=True)
            return self._kernel

    async def execute(self, code: str, variables: Mapping[str, str]) -> Execution:
        """Send code to the kernel; it is executed after what was sent before.

        Args:
            code: The code.
            variables: Of the environment, for this execution alone.

        Raises:
            NoKernel: There is no kernel for the language.
            KernelFailed: It did not start.
            OSError: The sandbox has ended, or its disk is full.
        """
        kernel = await self.start()
        # One after the other without a pause, so that no other client's code comes between.
        if variables:
            kernel.submit(set_variables(self.language, variables), silent=True)
        execution = kernel.submit(code)
        if variables:
            kernel.submit(reset_variables(self.language, variables, self._env), silent=True)
        return execution

    def abandon(self, execution: Execution) -> None:
        """Interrupt an execution whose client has gone away, once the kernel executes it."""
        task = asyncio.ensure_future(self._interrupt(execution))
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)

    async def restart(self) -> None:
        """End the kernel, and start another.

        Raises:
            KernelFailed: It did not start.
            NoKernel: There is no kernel for the language.
            OSError: The sandbox has ended, or its disk is full.
        """
        await self._end(Restarted("Context was restarted"))
        await self.start()

    async def close(self, *, with_sandbox: bool = False) -> None:
        """End it, and what is executed in it; the kernel's own children only if the sandbox does not end next."""
        self._closed = True
        for task in self._abandoned:
            task.cancel()
        await asyncio.gather(*self._abandoned, return_exceptions=True)
        await self._end(BrokenPipeError("the context was closed"), with_sandbox)

    async def _interrupt(self, execution: Execution) -> None:
        await execution.began.wait()
        kernel = execution.kernel
        if execution.ended or kernel is None:
            return
        if kernel.interruptible:
            await kernel.interrupt()
            return
        waiting = kernel.leave()
        try:
            await kernel.close(ConnectionError("it was interrupted"))
            if waiting:
                successor = await self.start()
                for each in waiting:
                    successor.send(each)
        except BaseException as error:
            for each in waiting:
                each.end(ConnectionError(f"no other kernel started: {error}"))
            if not isinstance(error, (NoKernel, KernelFailed, OSError)):
                raise

    async def _start(self) -> Kernel:
        if self._closed:
            raise ConnectionError("the context was closed")
        recipe = recipe_for(self.language, self._places)
        starting = Kernel.start(self._sandbox, recipe, cwd=self.cwd, env=self._env, context=self._zmq_context())
        self._start_of_kernel = task = asyncio.ensure_future(starting)
        try:
            return await task
        except asyncio.CancelledError:
            if task.cancelled() and self._closed:
                raise ConnectionError("the context was closed") from None
            task.cancel()
            raise
        finally:
            self._start_of_kernel = None

    async def _end(self, reason: BaseException, with_sandbox: bool = False) -> None:
        if self._closed and self._start_of_kernel is not None:
            self._start_of_kernel.cancel()
        async with self._starting:
            kernel, self._kernel = self._kernel, None
            if kernel is not None:
                await kernel.close(reason, with_sandbox=with_sandbox)


__all__ = ["HOME", "Context", "KernelFailed", "Restarted"]
