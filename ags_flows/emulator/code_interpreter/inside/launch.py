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
        bash = runpy.run_path(str(Path(here, "bash.py")))
        application.launch_instance(arguments, kernel_class=bash["Bash"])
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


if __name__ == "__main__":
    main()
