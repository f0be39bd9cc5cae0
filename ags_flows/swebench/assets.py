"""Files that a patch cannot contain, such as reference images of tests. SWE-bench Multimodal has their URLs.

The files are copied into the repository immediately before the tests, as in the official harness: earlier steps of the
evaluation script would remove them.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from ags_flows.errors import ServiceError
from ags_flows.session import SandboxSession
from ags_flows.swebench.official import harness

STAGE = "/image_assets"
FETCHING = 60.0


@dataclass(frozen=True)
class Asset:
    """One file: its path relative to the repository, and its URL."""

    path: str
    url: str

    @property
    def staged(self) -> str:
        """Path of the file in the sandbox until the tests start."""
        return f"{STAGE}/{self.path.replace('/', '__')}"


def assets_of(instance: dict[str, object]) -> list[Asset]:
    """Return the files that the tests of an instance need.

    Raises:
        ValueError: A file has no URL.
    """
    declared = harness().make_test_spec(instance).image_assets or {}
    assets = []
    for part in ("test_patch", "patch"):
        for entry in declared.get(part) or []:
            if entry.get("path"):
                if not entry.get("url"):
                    raise ValueError(f"image_assets: {entry['path']} has no url")
                assets.append(Asset(str(entry["path"]), str(entry["url"])))
    return assets


def stage(assets: Sequence[Asset], sandbox: SandboxSession) -> None:
    """Download files and write them to a sandbox.

    Raises:
        ServiceError: A file cannot be downloaded. Without it the tests would fail for every patch.
    """
    for asset in assets:
        try:
            response = httpx.get(asset.url, timeout=FETCHING, follow_redirects=True).raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServiceError(
                f"image_assets: {asset.path} cannot be downloaded from {asset.url}: "
                f"{str(error) or type(error).__name__}",
                hint="The download is retried; this machine must be able to reach that URL.",
            ) from error
        sandbox.write(asset.staged, response.content, user="root")


def restoring(assets: Sequence[Asset], script: str) -> str:
    """Return an evaluation script that copies the files into the repository immediately before the tests."""
    commands = [
        f'mkdir -p "$(dirname {shlex.quote(asset.path)})" && cp {shlex.quote(asset.staged)} {shlex.quote(asset.path)}'
        for asset in assets
    ]
    lines = script.split("\n")
    begin = next((index for index, line in enumerate(lines) if harness().START_TEST_OUTPUT in line), len(lines))
    return "\n".join([*lines[:begin], *commands, *lines[begin:]])
