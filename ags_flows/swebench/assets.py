"""Files that no patch can carry, such as pictures that a test compares with: SWE-bench Multimodal has their addresses.

They come into the tree right before the tests, as the official harness puts them there: what the evaluation script does
before would remove them.
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
    """One file: where it belongs, relative to the repository, and where it is had from."""

    path: str
    url: str

    @property
    def staged(self) -> str:
        """Where it lies in the sandbox until the tests begin."""
        return f"{STAGE}/{self.path.replace('/', '__')}"


def assets_of(instance: dict[str, object]) -> list[Asset]:
    """Return the files that the tests of an instance need.

    Raises:
        ValueError: One has no address.
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
    """Fetch files and lay them into a sandbox.

    Raises:
        ServiceError: One cannot be had. Without it the tests would fail, whatever the patch.
    """
    for asset in assets:
        try:
            answer = httpx.get(asset.url, timeout=FETCHING, follow_redirects=True).raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServiceError(
                f"image_assets: {asset.path} cannot be fetched from {asset.url}: {str(error) or type(error).__name__}",
                hint="It is tried again; this machine has to reach that address.",
            ) from error
        sandbox.write(asset.staged, answer.content, user="root")


def restoring(assets: Sequence[Asset], script: str) -> str:
    """Return an evaluation script that puts files into the tree right before the tests."""
    commands = [
        f'mkdir -p "$(dirname {shlex.quote(asset.path)})" && cp {shlex.quote(asset.staged)} {shlex.quote(asset.path)}'
        for asset in assets
    ]
    lines = script.split("\n")
    begin = next((place for place, line in enumerate(lines) if harness().START_TEST_OUTPUT in line), len(lines))
    return "\n".join([*lines[:begin], *commands, *lines[begin:]])
