"""What Prefect loads by the entry point `prefect.collections`: importing this module registers the block types."""

from ags_flows.blocks import AGSConfig, TencentCloudCredentials
from ags_flows.job import SandboxJob

__all__ = ["AGSConfig", "SandboxJob", "TencentCloudCredentials"]
