"""Starts a kernel that is written in Python, inside of a sandbox. A script; nothing imports it.

Arguments: the module to run, directories of packages (separated by colons), then what the kernel gets.
"""

import os
import runpy
import site
import sys
from importlib import import_module
from pathlib import Path


def main() -> None:
    """Set the paths and run."""
    module, packages, *arguments = sys.argv[1:]
    here = str(Path(__file__).resolve().parent)
    sys.path = [entry for entry in sys.path if entry != here]
    # Made now, since Python looks for it at its start only: what is installed later is to be found.
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
    if module != "ipykernel":
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return
    application = import_module("ipykernel.kernelapp").IPKernelApp.instance()
    application.initialize([*arguments, "--InteractiveShell.colors=NoColor", "--HistoryManager.enabled=False"])
    display = runpy.run_path(str(Path(here, "display.py")))
    display["install"](application.shell)
    application.start()


if __name__ == "__main__":
    main()
