"""Where a sandbox finds what its kernels are made of: this program's Python, its packages, other kernels."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import site
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from ags_flows.emulator.code_interpreter.kernelspecs import KernelSpec, installed_kernels
from ags_flows.emulator.sandbox import Bind, isolation

_ROOT = "/opt/ags"
_VISIBLE = ("/usr", "/bin", "/lib", "/lib64")
_OF_KERNELS = ("ipykernel", "IPython", "bash_kernel", "e2b_charts", "matplotlib", "pandas")
_FONTS = Path("/etc/fonts")
_INSIDE = Path(__file__).parent / "inside"


@dataclass(frozen=True)
class Places:
    """Paths as a sandbox sees them.

    Attributes:
        python: The interpreter of kernels that are written in Python.
        libraries: A directory with only its shared library, or None.
        packages: Directories of packages.
        scripts: The directory of `launch.py`.
        deno: The program, or None.
        binds: The mounts that it needs.
        kernels: Kernels that are installed with a specification, by language.
    """

    python: str
    libraries: str | None
    packages: tuple[str, ...]
    scripts: str
    deno: str | None
    binds: tuple[Bind, ...]
    kernels: Mapping[str, KernelSpec]


def interpreter_binds() -> tuple[Bind, ...]:
    """Return what a sandbox needs from the host for its code interpreter; nothing if there are no namespaces."""
    return isolated_places().binds if isolation().bwrap is not None else ()


def prefect_binds(directory: Path) -> tuple[Bind, ...]:
    """Return the command `prefect` for a sandbox that has `interpreter_binds`; nothing if there are no namespaces.

    Args:
        directory: Where the command's script is written on the host.
    """
    if isolation().bwrap is None:
        return ()
    places, script = isolated_places(), directory / "prefect"
    libraries = f"export LD_LIBRARY_PATH={shlex.quote(places.libraries)}\n" if places.libraries else ""
    packages = shlex.quote(os.pathsep.join(places.packages))
    directory.mkdir(parents=True, exist_ok=True)
    script.write_text(
        f"#!/bin/sh\n{libraries}export PYTHONPATH={packages}${{PYTHONPATH:+:$PYTHONPATH}}\n"
        f'exec {shlex.quote(places.python)} -m prefect "$@"\n',
        encoding="utf-8",
    )
    script.chmod(0o755)
    return (Bind(script, "/opt/sandbox/bin/prefect", readonly=True),)


@cache
def host_places() -> Places:
    """Return the places of processes that see the host's files."""
    packages = tuple(str(path) for path in _package_directories() if str(path) not in _standard())
    return Places(sys.executable, None, packages, str(_INSIDE), _deno(), (), installed_kernels())


@cache
def isolated_places() -> Places:
    """Return the places of processes in namespaces."""
    binds = [Bind(_INSIDE, f"{_ROOT}/kernels", readonly=True)]
    base = Path(sys.base_prefix)
    own = Path(f"{_ROOT}/python")
    visible = _is_visible(base)
    if not visible:
        binds.append(Bind(base, str(own), readonly=True))
    root = base if visible else own
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    packages = []
    for path in _package_directories():
        if str(path) in _standard():
            continue
        if _is_visible(path):
            packages.append(str(path))
        else:
            target = f"{_ROOT}/packages/{len(packages)}"
            binds.append(Bind(path, target, readonly=True))
            packages.append(target)
    deno = _deno()
    if deno is not None and not _is_visible(Path(deno)):
        binds.append(Bind(Path(deno), f"{_ROOT}/bin/deno", readonly=True))
        deno = f"{_ROOT}/bin/deno"
    libraries = None
    library = Path(sysconfig.get_config_var("LIBDIR") or "", str(sysconfig.get_config_var("INSTSONAME")))
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and not visible and library.is_file():
        # The interpreter looks for it at its place on the host.
        libraries = f"{_ROOT}/lib"
        binds.append(Bind(library, f"{libraries}/{library.name}", readonly=True))
    kernels = {}
    for language, spec in installed_kernels().items():
        directory = Path(spec.directory)
        if not _is_visible(directory):
            target = f"{_ROOT}/kernels.d/{language}"
            binds.append(Bind(directory, target, readonly=True))
            spec = replace(spec, directory=target)
        kernels[language] = spec
    if _FONTS.is_dir():
        binds.append(Bind(_FONTS, str(_FONTS), readonly=True))
    return Places(
        python=str(root / "bin" / f"python{version}"),
        libraries=libraries,
        packages=tuple(packages),
        scripts=f"{_ROOT}/kernels",
        deno=deno,
        binds=tuple(binds),
        kernels=kernels,
    )


def has_package(name: str) -> bool:
    """Return True if kernels can import a package."""
    return importlib.util.find_spec(name) is not None


def _is_visible(path: Path) -> bool:
    return any(path.is_relative_to(place) for place in _VISIBLE)


@cache
def _standard() -> frozenset[str]:
    """Return the directories that the base interpreter itself looks in."""
    base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
    return frozenset(sysconfig.get_path(name, vars=base) for name in ("purelib", "platlib"))


def _package_directories() -> list[Path]:
    found = [*site.getsitepackages()]
    for name in _OF_KERNELS:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            found.append(str(Path(spec.origin).parent.parent))
    return [path for path in map(Path, dict.fromkeys(found)) if path.is_dir()]


def _deno() -> str | None:
    beside = Path(sysconfig.get_path("scripts"), "deno")
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("deno")
    return os.path.realpath(found) if found else None
