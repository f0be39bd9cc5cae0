"""Local code that a function imports: packages, modules and files that are laid on its path in the sandbox."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cachetools import LRUCache

from ags_flows import transfer
from ags_flows.cloud.data_plane import DataPlane
from ags_flows.errors import ConfigurationError
from ags_flows.ownership import digest

LEFT_OUT = ("__pycache__/", "*.pyc", ".git/")
REMOTE = ".ags_flows/include"

_digests: LRUCache[tuple[Path, tuple[tuple[str, int, int], ...]], str] = LRUCache(1_000)


@dataclass(frozen=True)
class Included:
    """Local files and directories, and the directory in the sandbox that they are in.

    Attributes:
        paths: Path in that directory to path on this machine.
        key: A digest of their names and contents; empty for none.
    """

    paths: Mapping[str, Path] = field(default_factory=dict)
    key: str = ""

    @property
    def remote(self) -> str:
        """The directory in the sandbox, relative to the user's home."""
        return f"{REMOTE}/{self.key}"

    def upload(self, plane: DataPlane) -> None:
        """Copy them into a sandbox; what is there already is not sent again."""
        for name, path in self.paths.items():
            target = f"{self.remote}/{name}"
            if path.is_dir():
                transfer.upload_directory(plane, path, target, exclude=LEFT_OUT)
            else:
                transfer.upload_file(plane, path, target)


def included(names: Sequence[str], base: Path) -> Included:
    """Return what `include=` names.

    Args:
        names: Paths, relative to `base`, or names of packages and modules that can be imported here.
        base: The directory of the function's file.

    Raises:
        ConfigurationError: There is no such file and no such package.
    """
    if not names:
        return Included()
    paths: dict[str, Path] = {}
    for name in names:
        for target, path in _paths_of(name, base).items():
            if paths.setdefault(target, path) != path:
                raise ConfigurationError(
                    f"include: more than one path ends with {target!r}; they would be at one place in the sandbox.",
                    hint="Include the directory around one of them.",
                )
    return Included(paths, digest(*(f"{target} {digest_of(path)}" for target, path in sorted(paths.items()))))


def _paths_of(name: str, base: Path) -> dict[str, Path]:
    """Return what a name stands for: path in the sandbox to path on this machine."""
    path = base / Path(name).expanduser()
    if path.exists():
        return {path.resolve().name: path.resolve()}
    try:
        found = importlib.util.find_spec(name) if "/" not in name else None
    except (ImportError, ValueError):
        found = None
    if found is not None:
        parents, _, last = name.rpartition(".")
        directory = "".join(f"{one}/" for one in parents.split(".") if one)
        # Python executes the packages around a module before the module.
        around = _paths_around(parents)
        if found.submodule_search_locations:
            return {**around, directory + last: Path(next(iter(found.submodule_search_locations))).resolve()}
        if found.origin and Path(found.origin).is_file():
            return {**around, directory + Path(found.origin).name: Path(found.origin).resolve()}
    raise ConfigurationError(
        f"include: {name!r} is neither a path below {base} nor a package that can be imported here.",
        hint="Give a path relative to the file of the function, or the name of a package.",
    )


def _paths_around(package: str) -> dict[str, Path]:
    """Return the files by which Python knows a package and those around it; the other modules are not sent."""
    paths = {}
    parts = package.split(".") if package else []
    for count in range(1, len(parts) + 1):
        found = importlib.util.find_spec(".".join(parts[:count]))
        if found is not None and found.origin and Path(found.origin).is_file():
            paths["/".join([*parts[:count], Path(found.origin).name])] = Path(found.origin).resolve()
    return paths


def digest_of(path: Path) -> str:
    """Return a digest of a file's content, or of all files in a directory."""
    files = sorted(_files_of(path))
    looked = tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    known = _digests.get((path, looked))
    if known is None:
        hasher = hashlib.sha256()
        for file in files:
            hasher.update(f"{file.relative_to(path.parent)}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as content:
                while piece := content.read(1 << 20):
                    hasher.update(piece)
        _digests[path, looked] = known = hasher.hexdigest()[:16]
    return known


def _files_of(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for file in path.rglob("*"):
        parts = file.relative_to(path).parts
        if file.is_file() and "__pycache__" not in parts and ".git" not in parts and file.suffix != ".pyc":
            yield file
