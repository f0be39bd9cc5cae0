"""The values that cross task boundaries: frozen, JSON-safe, without secrets.

Names follow AGS (tool, instance, mount, probe); units stand in the field names. `ToolSpec` and its parts describe
what to create and are checked when they are built, before any request; `Tool`, `Instance`, ... are what AGS answered
and tolerate states and fields that came after this version.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator
from typing_extensions import Self

from ags_flows.durations import parse_duration
from ags_flows.errors import ConfigurationError

ImageRegistryType = Literal["enterprise", "personal", "custom", "system"]

TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,50}")
_CPU = re.compile(r"(?:[1-9]\d*(?:\.\d+)?|0?\.\d*[1-9]\d*|[1-9]\d*m)")
_MEMORY = re.compile(r"[1-9]\d*(?:Mi|Gi)")
_IMAGE = re.compile(r"[A-Za-z0-9][\w.\-/:@]*", re.ASCII)


class Value(BaseModel):
    """Base of all values: frozen, and strict about names, since a mistyped field must not be dropped.

    Raises:
        ConfigurationError: A field breaks its rule; the message names field, rule and value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **data: Any) -> None:
        """Check the fields, and speak of what is wrong in one sentence a field."""
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise ConfigurationError(explain(type(self).__name__, error)) from None


def explain(subject: str, error: ValidationError) -> str:
    """Return pydantic's findings as one line: which field, which rule, which value."""
    findings = []
    for item in error.errors(include_url=False):
        field = ".".join(str(part) for part in item["loc"]) or subject
        message = item["msg"].removeprefix("Value error, ")
        shown = f" (got {item['input']!r})" if item["type"] not in ("value_error", "missing") else ""
        findings.append(f"{field}: {message}{shown}")
    return f"{subject} is not valid. " + "; ".join(finding.rstrip(".") for finding in findings) + "."


def check_tool_name(name: str) -> str:
    """Return `name`, or raise ValueError with the rule of AGS for names of tools."""
    if not TOOL_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a tool name: 1 to 50 letters, digits, '_' or '-'")
    return name


def _check_image(image: str) -> str:
    if not image.strip():
        raise ValueError("the image name is empty: give a reference such as 'python:3.11'")
    if not _IMAGE.fullmatch(image):
        raise ValueError(f"{image!r} is not an image reference such as 'registry.example.com/team/name:tag'")
    return image


def _check_image_of_mount(image: str) -> str:
    last = _check_image(image).rsplit("/", 1)[-1]
    if ":" not in last and "@" not in last:
        raise ValueError(f"{image!r} needs a tag or a digest: AGS mounts no image without")
    return image


def _check_cpu(cpu: Any) -> str:
    text = str(cpu)
    if not _CPU.fullmatch(text):
        raise ValueError(f"{cpu!r} is not an amount of CPU: write cores ('2', '0.5') or millicores ('500m')")
    return text


def _check_memory(memory: str) -> str:
    if not _MEMORY.fullmatch(memory):
        raise ValueError(f"{memory!r} is not an amount of memory: write '512Mi' or '2Gi'")
    return memory


def _check_mount_path(path: str) -> str:
    if not path.startswith("/") or "\0" in path or ".." in path.split("/") or path.rstrip("/") == "":
        raise ValueError(f"{path!r} is not a mount path: an absolute path below '/', without '..'")
    return path


def _check_timeout(value: Any) -> str:
    parse_duration(value)
    return str(value)


ToolName = Annotated[str, BeforeValidator(check_tool_name)]
Image = Annotated[str, BeforeValidator(_check_image)]
Cpu = Annotated[str, BeforeValidator(_check_cpu)]
Memory = Annotated[str, BeforeValidator(_check_memory)]
MountPath = Annotated[str, BeforeValidator(_check_mount_path)]
PortNumber = Annotated[int, Field(ge=1, le=65535)]
Timeout = Annotated[str, BeforeValidator(_check_timeout)]


class Port(Value):
    """A port that the tool declares."""

    name: str = Field(min_length=1)
    port: PortNumber
    protocol: Literal["TCP", "UDP"] = "TCP"


class Probe(Value):
    """The HTTP readiness probe that gates the start of an instance."""

    path: str = Field(default="/", pattern="^/")
    port: PortNumber = 80
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"
    ready_timeout_ms: int = Field(default=30_000, gt=0)
    timeout_ms: int = Field(default=1_000, gt=0)
    period_ms: int = Field(default=100, gt=0)
    success_threshold: int = Field(default=1, ge=1)
    failure_threshold: int = Field(default=100, ge=1)


class Resources(Value):
    """What one instance may use."""

    cpu: Cpu = "1"
    memory: Memory = "2Gi"
    storage: Literal["1Gi", "5Gi", "10Gi", "20Gi"] | None = None


class Network(Value):
    """How an instance reaches out: `PUBLIC`, `VPC`, or `SANDBOX` (not at all)."""

    mode: Literal["PUBLIC", "VPC", "SANDBOX"] = "PUBLIC"
    subnet_ids: tuple[str, ...] = ()
    security_group_ids: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _vpc_is_whole(self) -> Self:
        given = bool(self.subnet_ids), bool(self.security_group_ids)
        if self.mode == "VPC" and not all(given):
            raise ValueError("network mode VPC needs both subnet_ids and security_group_ids")
        if self.mode != "VPC" and any(given):
            raise ValueError(f"subnet_ids and security_group_ids need network mode VPC, not {self.mode}")
        return self


class ImageSource(Value):
    """A directory of an image, as storage: how envd gets into a custom image."""

    kind: Literal["image"] = "image"
    image: Annotated[str, BeforeValidator(_check_image_of_mount)]
    image_registry_type: ImageRegistryType = "enterprise"
    subpath: str = "/"


class CosSource(Value):
    """A directory of a COS bucket."""

    kind: Literal["cos"] = "cos"
    bucket: str = Field(min_length=1)
    path: str = Field(default="/", pattern="^/")
    endpoint: str | None = None


class CfsSource(Value):
    """A directory of a CFS file system."""

    kind: Literal["cfs"] = "cfs"
    file_system_id: str = Field(min_length=1)
    path: str = Field(default="/", pattern="^/")


class AgentBucketSource(Value):
    """A space of an AgentBucket library."""

    kind: Literal["agent-bucket"] = "agent-bucket"
    library_id: str = Field(min_length=1)
    space_id: str = Field(min_length=1)
    access_domain: str | None = None


class VolumeSource(Value):
    """A volume of AGS, by its id (`vol-...`) or its name."""

    kind: Literal["volume"] = "volume"
    volume_id: str | None = None
    name: str | None = None

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        if bool(self.volume_id) == bool(self.name):
            raise ValueError("a volume is named by volume_id or by name, and not by both")
        return self


class VolumeTemplateSource(Value):
    """A volume that is made from a template; instances with an equal `reuse_key` share one."""

    kind: Literal["volume-template"] = "volume-template"
    name: str = Field(min_length=1)
    reuse_key: str | None = None


MountSource = Annotated[
    ImageSource | CosSource | CfsSource | AgentBucketSource | VolumeSource | VolumeTemplateSource,
    Field(discriminator="kind"),
]


class StorageMount(Value):
    """Storage that every instance of the tool finds at `mount_path`."""

    name: str = Field(min_length=1)
    mount_path: MountPath
    source: MountSource
    readonly: bool = False


class MountOption(Value):
    """A change to one of the tool's mounts, for one instance: `readonly` can only be tightened."""

    name: str = Field(min_length=1)
    mount_path: MountPath | None = None
    subpath: str | None = None
    readonly: bool | None = None


class Dns(Value):
    """Name resolution in a container, as in `resolv.conf`."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Security(Value):
    """What a container's root may do. AGS runs containers privileged unless `privileged` is False."""

    privileged: bool | None = None
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()


class Logs(Value):
    """Files below `/logs` that are collected, and the CLS topic that they are sent to (which needs a role)."""

    files: tuple[Annotated[str, Field(pattern=r"^/logs/[^/\x00]+$")], ...] = Field(default=(), max_length=10)
    topic_id: str | None = None


class Computer(Value):
    """What a tool of type `osworld` or `waa` runs."""

    osworld_version: str | None = None
    waa_image_id: str | None = None


CONTAINER_FIELDS = ("image", "image_registry_type", "command", "args", "env", "ports", "probe", "dns", "security")
"""Fields of a `ToolSpec` that describe its container."""

CONTAINER_TYPES = ("custom", "swebench")
"""Types of tools whose container is the user's own."""


class ToolSpec(Value):
    """A sandbox tool to create: everything that CreateSandboxTool takes.

    `image=None` takes the default image of the configuration, for tools of type `custom`. For these, `resources=None`
    means those of `Resources()`; for others, what AGS gives to the type.

    Example:
        ```python
        ToolSpec(name="nightly-etl", image="python:3.11", resources=Resources(cpu="2", memory="4Gi"))
        ```
    """

    name: ToolName
    type: str = "custom"
    image: Image | None = None
    image_registry_type: ImageRegistryType | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    resources: Resources | None = None
    probe: Probe | None = None
    dns: Dns | None = None
    security: Security | None = None
    computer: Computer | None = None
    logs: Logs | None = None
    network: Network = Network()
    mounts: tuple[StorageMount, ...] = Field(default=(), max_length=10)
    tags: dict[str, str] = Field(default_factory=dict)
    role_arn: str | None = None
    description: str = Field(default="", max_length=200)
    default_timeout: Timeout | None = None
    persistent: bool = False

    @model_validator(mode="after")
    def _container_fields_need_a_container(self) -> Self:
        if self.type not in CONTAINER_TYPES:
            given = [name for name in CONTAINER_FIELDS if getattr(self, name)]
            if given:
                raise ValueError(f"{', '.join(given)}: only for tools of type 'custom', not {self.type!r}")
        if self.persistent and self.default_timeout:
            raise ValueError("default_timeout and persistent exclude each other: a persistent one has no timeout")
        names = [mount.name for mount in self.mounts]
        if len(set(names)) != len(names):
            raise ValueError(f"mounts: names must differ, got {', '.join(names)}")
        paths = [mount.mount_path.rstrip("/") for mount in self.mounts]
        if len(set(paths)) != len(paths):
            raise ValueError(f"mounts: mount paths must differ, got {', '.join(paths)}")
        return self


class CustomConfiguration(Value):
    """What one instance has different from its tool (StartSandboxInstance's CustomConfiguration)."""

    image: Image | None = None
    image_registry_type: ImageRegistryType | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    resources: Resources | None = None
    probe: Probe | None = None
    dns: Dns | None = None
    security: Security | None = None


class Answer(BaseModel):
    """Base of what AGS answers: frozen, tolerant of fields that came after this version."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Tool(Answer):
    """A sandbox tool as AGS describes it. Times are aware; `default_timeout` is in seconds."""

    id: str
    name: str
    type: str = "custom"
    status: str
    status_reason: str | None = None
    image: str | None = None
    description: str = ""
    tags: dict[str, str] = Field(default_factory=dict)
    network_mode: str | None = None
    role_arn: str | None = None
    persistent: bool = False
    default_timeout: int | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


class Instance(Answer):
    """A sandbox instance as AGS describes it. Times are aware; `timeout` is in seconds, None without end."""

    id: str
    tool_id: str
    tool_name: str = ""
    status: str
    stop_reason: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    auth_mode: str | None = None
    persistent: bool = False
    timeout: int | None = None
    expires_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


class Snapshot(Answer):
    """A snapshot of an instance."""

    id: str
    name: str = ""
    instance_id: str | None = None
    status: str = "ACTIVE"
    memory: bool = False
    tags: dict[str, str] = Field(default_factory=dict)
    created_at: datetime | None = None


class AccessToken(Answer):
    """What opens one instance's data plane. `token` is masked in text and in JSON: it never leaves the process."""

    instance_id: str
    token: SecretStr
    traffic_token: SecretStr | None = None
    expires_at: datetime | None = None


class ExecResult(Value):
    """The outcome of a command. An exit code other than 0 is a value, not an error.

    `exit_code` is 128 plus the signal's number when a signal ended the command. `stdout` and `stderr` hold at most
    the limit that was asked for (head and tail); the `_size` fields count what was written, in bytes.
    """

    command: str
    exit_code: int
    stdout: str = ""
    stderr: str = ""
    stdout_size: int = 0
    stderr_size: int = 0
    truncated: bool = False
    seconds: float = 0.0
    instance_id: str = ""
    journal: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the command succeeded."""
        return self.exit_code == 0


class CodeError(Value):
    """An exception that code raised in the interpreter."""

    name: str
    value: str
    traceback: str = ""


class CodeResult(Value):
    """The outcome of one execution in the code interpreter.

    `results` holds one mapping of MIME-like names (`text`, `html`, `png`, `chart`, ...) to content for each rich
    result, as the interpreter sent them.
    """

    code: str
    language: str = "python"
    text: str | None = None
    stdout: str = ""
    stderr: str = ""
    results: tuple[dict[str, Any], ...] = ()
    error: CodeError | None = None
    execution_count: int | None = None
    instance_id: str = ""

    @property
    def ok(self) -> bool:
        """Whether no exception was raised."""
        return self.error is None


class FileInfo(Value):
    """A file or a directory in a sandbox. `mode` is octal permission bits; times are aware."""

    path: str
    name: str
    type: Literal["file", "dir", "symlink", "other"]
    size: int = 0
    mode: int = 0
    owner: str = ""
    group: str = ""
    modified_at: datetime | None = None
    symlink_target: str | None = None


class Transfer(Value):
    """What was moved between this machine and a sandbox."""

    source: str
    destination: str
    files: int
    size: int
    seconds: float


class CleanupReport(Value):
    """What a cleanup ended, and in one sentence each what it could not."""

    instance_id: str | None = None
    tool_id: str | None = None
    problems: tuple[str, ...] = ()


class Step(Value):
    """One step of a run and how long it took."""

    name: str
    seconds: float
    status: Literal["completed", "failed", "skipped"] = "completed"
    message: str = ""


class RunReport(Value):
    """What a flow did: the command's outcome, where it ran, and every step with its duration."""

    result: ExecResult
    instance_id: str
    tool_id: str
    tool_name: str
    steps: tuple[Step, ...] = ()
    downloads: dict[str, str] = Field(default_factory=dict)
    seconds: float = 0.0
