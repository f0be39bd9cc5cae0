"""Prefect assets that a run produces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prefect.assets import Asset, add_asset_metadata, materialize
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from pydantic import ValidationError

from ags_flows.errors import ConfigurationError
from ags_flows.run.logs import run_logger


def check_assets(keys: Iterable[str]) -> None:
    """Check the keys of assets.

    Raises:
        ConfigurationError: A key is not a URI.
    """
    for key in keys:
        try:
            Asset(key=key)
        except ValidationError as error:
            rule = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ConfigurationError(
                f"assets: {key!r} is not the key of an asset: {rule}.",
                hint="Write a URI, such as s3://bucket/orders.parquet.",
            ) from None


def materialize_assets(keys: Iterable[str], metadata: Mapping[str, Any]) -> None:
    """Record that this run has produced assets. Outside of flow runs, log that they are not recorded.

    Args:
        keys: The keys of the assets, such as `s3://bucket/orders.parquet`.
        metadata: What is known of them, JSON-like and without secrets; the same for each.
    """
    assets = tuple(dict.fromkeys(keys))
    if not assets:
        return
    if FlowRunContext.get() is None:
        run_logger().info("Assets are not recorded outside of a flow run: %s", ", ".join(assets))
        return

    @materialize(*assets, name="materialize", task_run_name="materialize assets", tags={"ags"}, cache_policy=NO_CACHE)
    def record() -> None:
        for asset in assets:
            add_asset_metadata(asset, dict(metadata))

    record()
