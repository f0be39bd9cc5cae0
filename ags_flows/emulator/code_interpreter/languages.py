"""The languages: how the kernel of each is started, and how it sets variables of its environment."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ags_flows.emulator.code_interpreter.places import Places, has_package

ALIASES = {"js": "javascript", "ts": "typescript", "python3": "python", "py": "python", "sh": "bash"}
DEFAULTS = ("python", "javascript")
"""The languages whose default contexts are there from the start; their kernels start with the first use."""

CONNECTION_FILE = "{connection_file}"

MARK = "{mark}"
# Deno sends output from another thread than its states: late, and as output of the request that it executes then. The
# value of the last expression is kept.
_PRINT_MARK = "console.log({mark}), globalThis._"
_DENO = ("javascript", "typescript", "deno")
_ADVICE = {
    "bash": "the kernel bash_kernel; install it beside the emulator: pip install bash-kernel",
    **dict.fromkeys(_DENO, "the program deno; install it beside the emulator: pip install deno"),
    "r": "the kernel IRkernel; on Debian and Ubuntu: apt-get install r-cran-irkernel",
    "java": "a JDK and a Java kernel; install a JDK and, beside the emulator: pip install jjava",
    "python": "the kernel ipykernel; install it beside the emulator: pip install ipykernel",
}


# The kernel of Java drops output if more than a thousand pieces wait to be sent. With this option of its socket, it
# waits for the reader. Other kernels than JJava are not changed.
_WAIT_FOR_READER = """
try {
    Object io = Class.forName("org.dflib.jjava.jupyter.kernel.BaseKernel").getMethod("notebookKernel").invoke(null);
    io = io.getClass().getMethod("getIO").invoke(io);
    java.lang.reflect.Field out = io.getClass().getDeclaredField("jupyterOut");
    out.setAccessible(true);
    java.lang.reflect.Field env = out.getType().getDeclaredField("env");
    env.setAccessible(true);
    Object reply = env.get(out.get(io));
    Object socket = reply.getClass().getMethod("getIopub").invoke(reply);
    socket.getClass().getMethod("setXpubNoDrop", boolean.class).invoke(socket, true);
} catch (ReflectiveOperationException unknown) { }
"""


class NoKernel(Exception):
    """There is no kernel for a language."""


@dataclass(frozen=True)
class Recipe:
    """How a kernel is started.

    Attributes:
        argv: The command; `CONNECTION_FILE` stands for the file of that name.
        env: Its environment, over that of the sandbox.
        interrupt: What interrupts it: a message, SIGINT, or None if only its end does.
        mark: Code that prints a text, which stands for `MARK`, where output may come after the kernel is idle.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    interrupt: Literal["message", "signal"] | None = "message"
    mark: str | None = None


def language_named(name: str | None) -> str:
    """Return the language with a name or an alias; Python if the name is None."""
    language = (name or "python").strip().lower() or "python"
    return ALIASES.get(language, language)


def recipe_for(language: str, places: Places) -> Recipe:
    """Return how the kernel of a language is started.

    Raises:
        NoKernel: There is no kernel for it. The message explains how to install one.
    """
    if language == "python" and has_package("ipykernel"):
        return _of_python("ipykernel", places)
    if language == "bash" and has_package("bash_kernel"):
        return _of_python("bash_kernel", places)
    if language in _DENO and places.deno is not None:
        # It knows the certificates of browsers only; a host's network may have others.
        env = {"NO_COLOR": "1", "DENO_NO_UPDATE_CHECK": "1", "DENO_TLS_CA_STORE": "mozilla,system"}
        argv = (places.deno, "jupyter", "--kernel", "--conn", CONNECTION_FILE)
        # It ignores the message for an interrupt.
        return Recipe(argv, env, interrupt=None, mark=_PRINT_MARK)
    if language in ("r", "java"):
        recipe = _installed(language, places)
        if recipe is not None:
            return recipe
    advice = _ADVICE.get(language)
    if advice is None:
        known = ", ".join(sorted(name for name in _ADVICE if name != "deno"))
        raise NoKernel(f"There is no kernel for the language {language!r}. Known languages: {known}.")
    raise NoKernel(
        f"There is no kernel for the language {language!r}. It needs {advice}, and start the emulator again."
    )


def prepare(language: str, values: Mapping[str, str]) -> str | None:
    """Return code that a new kernel executes first, or None.

    Args:
        language: Its language.
        values: The environment. A JVM cannot change its own: E2B's Java kernels have properties for it.
    """
    return _WAIT_FOR_READER + set_variables(language, values) if language == "java" else None


def set_variables(language: str, values: Mapping[str, str]) -> str:
    """Return code that sets variables of the environment for one execution."""
    if language == "python":
        return f"__import__('_sandbox_variables').of_execution.apply({dict(values)!r})"
    return "\n".join(_set(language, name, value) for name, value in values.items())


def reset_variables(language: str, names: Mapping[str, str], base: Mapping[str, str]) -> str:
    """Return code that makes those variables what they are in the sandbox, or unsets them."""
    if language == "python":
        return "__import__('_sandbox_variables').of_execution.restore()"
    return "\n".join(_set(language, name, base[name]) if name in base else _unset(language, name) for name in names)


def text_of(language: str, text: str) -> str:
    """Return the text of a result without the quotes of a string."""
    quotes = "\"'" if language in _DENO else "'"
    return text[1:-1] if len(text) > 1 and text[0] in quotes and text[-1] == text[0] else text


def _of_python(module: str, places: Places) -> Recipe:
    argv = (places.python, f"{places.scripts}/launch.py", module, ":".join(places.packages), "-f", CONNECTION_FILE)
    env = {"PIP_BREAK_SYSTEM_PACKAGES": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    if places.libraries is not None:
        env["LD_LIBRARY_PATH"] = places.libraries
    return Recipe(argv, env)


def _installed(language: str, places: Places) -> Recipe | None:
    """Return the recipe of a kernel that is installed on the host by its specification."""
    spec = places.kernels.get(language)
    if spec is None:
        return None
    argv = tuple(argument.replace("{resource_dir}", spec.directory) for argument in spec.argv)
    return Recipe(argv, spec.env, "signal" if spec.by_signal else "message")


def _set(language: str, name: str, value: str) -> str:
    if language == "bash":
        return f"export {shlex.quote(name)}={shlex.quote(value)}"
    quoted, text = json.dumps(name), json.dumps(value)
    if language == "r":
        return f"do.call(Sys.setenv, setNames(list({text}), {quoted}))"
    if language == "java":
        return f"System.setProperty({quoted}, {text});"
    return f"Deno.env.set({quoted}, {text});"


def _unset(language: str, name: str) -> str:
    quoted = json.dumps(name)
    if language == "bash":
        return f"unset {shlex.quote(name)}"
    if language == "r":
        return f"Sys.unsetenv({quoted})"
    return f"System.clearProperty({quoted});" if language == "java" else f"Deno.env.delete({quoted});"
