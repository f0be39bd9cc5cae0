"""Jobs: commands in a dedicated sandbox, with files in and out."""

from ags_flows.job.block import SandboxJob, SandboxJobRun

__all__ = ["SandboxJob", "SandboxJobRun"]
