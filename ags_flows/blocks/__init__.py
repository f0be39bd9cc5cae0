"""Prefect blocks: credentials and configuration."""

from ags_flows.blocks.choice import resolve_config
from ags_flows.blocks.config import AGSConfig
from ags_flows.blocks.credentials import TencentCloudCredentials

__all__ = ["AGSConfig", "TencentCloudCredentials", "resolve_config"]
