"""The values that cross task boundaries: frozen, JSON-safe, without secrets.

Names follow AGS (tool, instance, mount, probe); field names contain the units. `ToolSpec` and its parts describe what
to create and are validated when they are constructed, before any request. `Tool`, `Instance` and others are responses
of AGS; they accept statuses and fields that this version does not know.
"""

from ags_flows.models.answers import (
    AccessToken,
    Answer,
    EnsuredTool,
    Instance,
    PrecachedImage,
    Quota,
    QuotaOverview,
    Snapshot,
    Tool,
)
from ags_flows.models.batch import BatchOptions, BatchReport, ItemResult
from ags_flows.models.checks import TOOL_NAME
from ags_flows.models.code import Chart, CodeContext, CodeError, CodeResult, RichResult
from ags_flows.models.containers import Computer, Dns, Logs, Network, Port, Probe, Resources, Security
from ags_flows.models.fields import (
    Cpu,
    Image,
    ImageRegistryType,
    Memory,
    MountPath,
    PortNumber,
    Region,
    RoleArn,
    Timeout,
    ToolName,
    check_mount_path,
    check_tool_name,
    registry_type_of,
)
from ags_flows.models.mounts import (
    AgentBucketSource,
    CfsSource,
    CosSource,
    ImageSource,
    MountOption,
    MountSource,
    StorageMount,
    VolumeSource,
    VolumeTemplateSource,
)
from ags_flows.models.reaping import PROTECTED, Reaped, ReapReport, ReapRules, Rule
from ags_flows.models.results import (
    CleanupReport,
    CommandHandle,
    ExecResult,
    FileInfo,
    RunReport,
    Step,
    Transfer,
)
from ags_flows.models.specs import CONTAINER_FIELDS, CONTAINER_TYPES, CustomConfiguration, ToolSpec
from ags_flows.models.swebench import EvaluationReport, Outcome, Verdict
from ags_flows.models.syncing import Drift, SyncedTool, SyncReport
from ags_flows.models.usage import Prices, Usage, UsageReport
from ags_flows.models.value import Value, explain

__all__ = [
    "CONTAINER_FIELDS",
    "CONTAINER_TYPES",
    "PROTECTED",
    "TOOL_NAME",
    "AccessToken",
    "AgentBucketSource",
    "Answer",
    "BatchOptions",
    "BatchReport",
    "CfsSource",
    "Chart",
    "CleanupReport",
    "CodeContext",
    "CodeError",
    "CodeResult",
    "CommandHandle",
    "Computer",
    "CosSource",
    "Cpu",
    "CustomConfiguration",
    "Dns",
    "Drift",
    "EnsuredTool",
    "EvaluationReport",
    "ExecResult",
    "FileInfo",
    "Image",
    "ImageRegistryType",
    "ImageSource",
    "Instance",
    "ItemResult",
    "Logs",
    "Memory",
    "MountOption",
    "MountPath",
    "MountSource",
    "Network",
    "Outcome",
    "Port",
    "PortNumber",
    "PrecachedImage",
    "Prices",
    "Probe",
    "Quota",
    "QuotaOverview",
    "ReapReport",
    "ReapRules",
    "Reaped",
    "Resources",
    "RichResult",
    "Region",
    "RoleArn",
    "Rule",
    "RunReport",
    "Security",
    "Snapshot",
    "Step",
    "StorageMount",
    "SyncReport",
    "SyncedTool",
    "Timeout",
    "Tool",
    "ToolName",
    "ToolSpec",
    "Transfer",
    "Usage",
    "UsageReport",
    "Value",
    "Verdict",
    "VolumeSource",
    "VolumeTemplateSource",
    "check_mount_path",
    "check_tool_name",
    "explain",
    "registry_type_of",
]
