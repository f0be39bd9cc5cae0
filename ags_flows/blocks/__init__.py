"""Prefect blocks: credentials and configuration."""

from ags_flows.blocks.choice import ConfigChoice, resolve_config
from ags_flows.blocks.config import AGSConfig
from ags_flows.blocks.credentials import TencentCloudCredentials
from ags_flows.blocks.fields import ConfigFields, with_fields

__all__ = ["AGSConfig", "ConfigChoice", "ConfigFields", "TencentCloudCredentials", "resolve_config", "with_fields"]
