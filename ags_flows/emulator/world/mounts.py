"""Storage mounts: their rules, and the host directories that stand for buckets, file systems and images.

Below the directory that the user names (``Emulator(volumes=DIR)``), a source has its own directory, made empty when
it is missing:

=============  ==================================================================
source         directory
=============  ==================================================================
COS            ``cos/<BucketName>/<BucketPath>``
CFS            ``cfs/<FileSystemId>/<Path>``
image          ``images/<Reference, with / and : and @ as _>/<SubPath>``
AgentBucket    ``agentbucket/<LibraryId>/<SpaceId>``
volume         ``volumes/<VolumeId>``
=============  ==================================================================

A tool's own image has the same directory as one that is mounted: what is in it lies in the root of each sandbox.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ags_flows.emulator.world.refusal import Refusal

Json = dict[str, Any]

_FORBIDDEN = ("/", "/proc", "/sys", "/dev", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc")


@dataclass(frozen=True)
class Mount:
    """A host directory and where it appears in a sandbox."""

    source: Path
    target: str
    readonly: bool


def check_mounts(mounts: list[Json] | None, role_arn: str | None) -> list[Json]:
    """Return a tool's storage mounts after checking them.

    Raises:
        Refusal: for the first rule that is broken.
    """
    mounts = mounts or []
    if len(mounts) > 10:
        raise Refusal("InvalidParameterValue.StorageMount", "A tool takes at most 10 StorageMounts.")
    names: set[str] = set()
    targets: set[str] = set()
    for mount in mounts:
        name = mount.get("Name") or ""
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,50}", name, re.ASCII):
            raise Refusal("InvalidParameterValue.StorageMount", f"StorageMount name {name[:60]!r} is not valid.")
        if name in names:
            raise Refusal("InvalidParameterValue.StorageMount", f"StorageMount name {name!r} is given twice.")
        names.add(name)
        target = _target(mount.get("MountPath"), "InvalidParameterValue.StorageMount")
        if target in targets:
            raise Refusal("InvalidParameterValue.StorageMount", f"MountPath {target} is used twice.")
        targets.add(target)
        _check_source(mount, role_arn)
    return mounts


def expand(tool_mounts: list[Json], options: list[Json] | None) -> list[Json]:
    """Return the mounts of one instance: each ``{Mount, MountPath, SubPath, ReadOnly}``.

    Without options all of the tool's mounts are taken. An option narrows one of them or repeats it elsewhere.

    Raises:
        Refusal: for an option that the tool does not allow.
    """
    by_name = {mount["Name"]: mount for mount in tool_mounts}
    chosen: list[Json] = []
    named: dict[str, list[Json]] = {}
    for option in options or []:
        name = option.get("Name") or ""
        mount = by_name.get(name)
        if mount is None:
            raise Refusal("ResourceNotFound.StorageMount", f"The tool has no StorageMount named {name!r}.")
        if option.get("ReadOnly") is False and mount.get("ReadOnly"):
            raise Refusal("InvalidParameterValue.MountOption", f"Mount {name!r} is read-only in the tool.")
        sub = option.get("SubPath") or ""
        if sub and (".." in sub.split("/") or "\0" in sub):
            raise Refusal("InvalidParameterValue.MountOption", f"SubPath {sub[:60]!r} must not leave the mount.")
        target = option.get("MountPath") or mount["MountPath"]
        target = _target(target, "InvalidParameterValue.MountOption")
        named.setdefault(name, []).append(option)
        chosen.append(
            {
                "Mount": mount,
                "MountPath": target,
                "SubPath": sub,
                "ReadOnly": bool(option.get("ReadOnly", mount.get("ReadOnly") or False)),
            }
        )
    for name, uses in named.items():
        subs = [use.get("SubPath") for use in uses]
        if len(uses) > 1 and (not all(use.get("MountPath") and use.get("SubPath") for use in uses)):
            raise Refusal(
                "InvalidParameterValue.MountOption",
                f"Mount {name!r} is used {len(uses)} times: each use needs a MountPath and a SubPath.",
            )
        if len(set(subs)) != len(subs):
            raise Refusal("InvalidParameterValue.MountOption", f"Mount {name!r} has the same SubPath twice.")
    for mount in tool_mounts:
        if mount["Name"] not in named:
            chosen.append(
                {
                    "Mount": mount,
                    "MountPath": _target(mount["MountPath"], "InvalidParameterValue.StorageMount"),
                    "SubPath": "",
                    "ReadOnly": bool(mount.get("ReadOnly")),
                }
            )
    targets = [each["MountPath"] for each in chosen]
    if len(set(targets)) != len(targets):
        raise Refusal("InvalidParameterValue.MountOption", "Two mounts have the same MountPath.")
    if len(chosen) > 10:
        raise Refusal("InvalidParameterValue.MountOption", "An instance takes at most 10 mounts.")
    return chosen


def on_host(volumes: Path, chosen: list[Json]) -> list[Mount]:
    """Return the mounts as host directories, made if they are missing.

    Raises:
        Refusal: ``FailedOperation.StorageMount`` when a directory cannot be made.
    """
    mounts = []
    for each in chosen:
        source = volumes / directory_of(each["Mount"]) / each["SubPath"].strip("/")
        try:
            # Before anything is made: a sandbox may have left a link in the volume.
            if not source.resolve().is_relative_to(volumes.resolve()):
                raise Refusal(
                    "FailedOperation.StorageMount", f"Mount {each['MountPath']} leaves the volumes' directory."
                )
            if not source.exists():
                source.mkdir(parents=True)
                # Sandboxes write as their own users; on the host it stays below the user's directory.
                source.chmod(0o777)
            resolved = source.resolve()
        except OSError as error:
            raise Refusal("FailedOperation.StorageMount", f"Mount {each['MountPath']} failed: {error}.") from error
        mounts.append(Mount(resolved, each["MountPath"], each["ReadOnly"] or "Image" in _source_of(each["Mount"])))
    return mounts


def files_of_image(volumes: Path, reference: str | None) -> Path | None:
    """Return the host directory with the files of an image, None when the user has made none."""
    directory = volumes / _of_image(reference, "/") if reference else None
    return directory if directory is not None and directory.is_dir() else None


def directory_of(mount: Json) -> Path:
    """Return where a mount's source is, relative to the directory of all volumes."""
    source = _source_of(mount)
    if "Cos" in source:
        return _below("cos", source["Cos"]["BucketName"], source["Cos"].get("BucketPath") or "/")
    if "Cfs" in source:
        return _below("cfs", source["Cfs"]["FileSystemId"], source["Cfs"].get("Path") or "/")
    if "Image" in source:
        return _of_image(source["Image"]["Reference"], source["Image"].get("SubPath") or "/")
    if "AgentBucket" in source:
        bucket = source["AgentBucket"]
        return _below("agentbucket", bucket.get("LibraryId") or "library", bucket.get("SpaceId") or "/")
    return _below("volumes", source["Volume"], "/")


def _of_image(reference: str, path: str) -> Path:
    return _below("images", re.sub(r"[/:@]", "_", reference), path)


def _source_of(mount: Json) -> Json:
    source = {kind: value for kind, value in (mount.get("StorageSource") or {}).items() if value is not None}
    for field in ("Volume", "VolumeTemplate"):
        reference = mount.get(field)
        if reference:
            source["Volume"] = next((str(value) for value in reference.values() if value), "volume")
    return source


def _below(kind: str, name: str, path: str) -> Path:
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    return Path(kind, re.sub(r"[/\x00]", "_", name).lstrip(".") or "_", *parts)


def _target(path: str | None, code: str) -> str:
    if not path or not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise Refusal(code, f"MountPath must be an absolute path, not {(path or '')[:60]!r}.")
    clean = "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
    if clean in _FORBIDDEN:
        raise Refusal(code, f"MountPath {clean} is not allowed.")
    return clean


def _check_source(mount: Json, role_arn: str | None) -> None:
    name, source = mount["Name"], _source_of(mount)
    code = "InvalidParameterValue.StorageMount"
    if len(source) != 1:
        raise Refusal(code, f"StorageMount {name!r} needs exactly one source.")
    kind, value = next(iter(source.items()))
    if kind == "Cos":
        if not role_arn:
            raise Refusal("MissingParameter.RoleArn", f"StorageMount {name!r} mounts COS, which needs RoleArn.")
        if not value.get("BucketName"):
            raise Refusal(code, f"StorageMount {name!r} needs Cos.BucketName.")
        if not (value.get("BucketPath") or "").startswith("/"):
            raise Refusal(code, f"StorageMount {name!r}: Cos.BucketPath must begin with /.")
    elif kind == "Cfs" and not value.get("FileSystemId"):
        raise Refusal(code, f"StorageMount {name!r} needs Cfs.FileSystemId.")
    elif kind == "Image":
        reference = value.get("Reference") or ""
        last = reference.rsplit("/", 1)[-1]
        if not reference or (":" not in last and "@" not in last):
            raise Refusal(code, f"StorageMount {name!r}: Image.Reference needs a tag or a digest.")
