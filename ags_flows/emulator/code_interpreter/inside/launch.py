"""Starts a kernel that is written in Python, inside of a sandbox. A script; nothing imports it.

Arguments: the module to run, directories of packages (separated by colons), then what the kernel gets.
"""

import os
import runpy
import site
import sys
from importlib import import_module
from pathlib import Path
from typing import Any


def main() -> None:
    """Set the paths and run."""
    module, packages, *arguments = sys.argv[1:]
    here = str(Path(__file__).resolve().parent)
    sys.path = [entry for entry in sys.path if entry != here]
    # Created now: Python looks for it only at its start, and packages may be installed later.
    own = Path(site.getusersitepackages())
    try:
        own.mkdir(parents=True, exist_ok=True)
        site.addsitedir(str(own))
    except OSError:
        pass
    for directory in packages.split(os.pathsep):
        if directory:
            site.addsitedir(directory)
    sys.argv = [module, *arguments]
    application = _application()
    if module == "bash_kernel":
        application.launch_instance(arguments, kernel_class=_bash())
        return
    application = application.instance()
    application.initialize([*arguments, "--InteractiveShell.colors=NoColor", "--HistoryManager.enabled=False"])
    display = runpy.run_path(str(Path(here, "display.py")))
    display["install"](application.shell)
    application.start()


def _application() -> Any:
    """Return the class of a kernel's process, in which no output is dropped that waits to be read."""
    base: Any = import_module("ipykernel.kernelapp").IPKernelApp

    class Application(base):  # type: ignore[misc]
        def init_iopub(self, context: Any) -> None:
            # By default 1,000 messages wait, and more are dropped silently.
            context.sndhwm = 0
            super().init_iopub(context)

    return Application


def _bash() -> Any:
    """Return the kernel of Bash, whose terminal sends a line's end as it is.

    The kernel takes a carriage return for one of the program's when the newline after it comes later.
    """
    base: Any = import_module("bash_kernel.kernel").BashKernel

    class Bash(base):  # type: ignore[misc]
        def _start_bash(self) -> None:
            super()._start_bash()
            self.bashwrapper.run_command("stty -onlcr")

    return Bash


if __name__ == "__main__":
    main()
