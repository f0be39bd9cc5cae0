"""Values: frozen, validated, JSON-safe, and without secrets."""

import json
from datetime import datetime, timezone

import pytest
from pydantic import SecretStr, TypeAdapter, ValidationError

from ags_flows import models
from ags_flows.errors import ConfigurationError
from ags_flows.models import (
    AccessToken,
    CfsSource,
    CosSource,
    CustomConfiguration,
    ExecResult,
    ImageSource,
    Instance,
    Logs,
    MountOption,
    Network,
    Port,
    Probe,
    Resources,
    RunReport,
    Step,
    StorageMount,
    Tool,
    ToolSpec,
    VolumeSource,
)


def mount(name="data", path="/mnt/data", **fields):
    return StorageMount(name=name, mount_path=path, source=CfsSource(file_system_id="cfs-1"), **fields)


@pytest.mark.parametrize("name", ["a", "Z_9-", "x" * 50, "nightly-etl"])
def test_tool_names_that_ags_accepts_are_valid(name):
    assert ToolSpec(name=name, image="python:3.11").name == name


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda: ToolSpec(name="", image="i"), ["name", "''", "1 to 50"]),
        (lambda: ToolSpec(name="x" * 51, image="i"), ["name", "1 to 50"]),
        (lambda: ToolSpec(name="naïve", image="i"), ["name", "naïve"]),
        (lambda: ToolSpec(name="a b", image="i"), ["name", "a b"]),
        (lambda: ToolSpec(name="a\n", image="i"), ["name"]),
        (lambda: ToolSpec(name="a", image=""), ["image", "empty"]),
        (lambda: ToolSpec(name="a", image="  "), ["image", "empty"]),
        (lambda: ToolSpec(name="a", image="py thon"), ["image", "py thon"]),
        (lambda: ToolSpec(name="a", imagee="i"), ["imagee"]),
        (lambda: ToolSpec(image="i"), ["name"]),
        (lambda: ToolSpec(name="a", image="i", description="x" * 201), ["description", "200"]),
        (lambda: ToolSpec(name="a", image="i", default_timeout="29s"), ["29s", "30s to 24h"]),
        (lambda: ToolSpec(name="a", image="i", default_timeout="soon"), ["soon"]),
        (lambda: ToolSpec(name="a", type="browser", image="i"), ["image", "custom", "browser"]),
        (lambda: ToolSpec(name="a", type="browser", image_registry_type="system"), ["image_registry_type", "browser"]),
        (lambda: ToolSpec(name="a", type="aio", env={"A": "1"}, command=("x",)), ["env", "command", "aio"]),
        (lambda: ToolSpec(name="a", image="i", persistent=True, default_timeout="5m"), ["persistent", "timeout"]),
        (lambda: ToolSpec(name="a", image="i", mounts=[mount(), mount(path="/b")]), ["mounts", "names must differ"]),
        (lambda: ToolSpec(name="a", image="i", mounts=[mount(), mount("b", "/mnt/data/")]), ["mounts", "paths"]),
        (lambda: ToolSpec(name="a", image="i", mounts=[mount(f"m{n}", f"/{n}") for n in range(11)]), ["mounts", "10"]),
        (lambda: Resources(cpu="two"), ["cpu", "two", "500m"]),
        (lambda: Resources(cpu="0"), ["cpu", "0"]),
        (lambda: Resources(cpu="-1"), ["cpu", "-1"]),
        (lambda: Resources(memory="4GB"), ["memory", "4GB", "2Gi"]),
        (lambda: Resources(memory="0Gi"), ["memory"]),
        (lambda: Resources(storage="3Gi"), ["storage", "3Gi"]),
        (lambda: Port(name="http", port=0), ["port"]),
        (lambda: Port(name="http", port=65536), ["port", "65535"]),
        (lambda: Port(name="", port=80), ["name"]),
        (lambda: Probe(path="ready"), ["path"]),
        (lambda: Probe(port=70000), ["port"]),
        (lambda: Probe(ready_timeout_ms=0), ["ready_timeout_ms"]),
        (lambda: Network(mode="VPC", subnet_ids=("subnet-1",)), ["security_group_ids"]),
        (lambda: Network(mode="SANDBOX", subnet_ids=("subnet-1",)), ["VPC", "SANDBOX"]),
        (lambda: Network(mode="OPEN"), ["mode", "OPEN"]),
        (lambda: mount(path="relative"), ["mount_path", "relative"]),
        (lambda: mount(path="/a/../etc"), ["mount_path", ".."]),
        (lambda: mount(path="/"), ["mount_path"]),
        (lambda: mount(path="/a\0b"), ["mount_path"]),
        (lambda: CosSource(bucket="b", path="data"), ["path"]),
        (lambda: ImageSource(image="tools"), ["image", "tag"]),
        (lambda: ImageSource(image="host:5000/tools"), ["image", "tag"]),
        (lambda: VolumeSource(), ["volume_id", "name"]),
        (lambda: VolumeSource(volume_id="vol-1", name="v"), ["volume_id", "name"]),
        (lambda: Logs(files=("/var/log/x",)), ["files", "/var/log/x"]),
        (lambda: Logs(files=("/logs/a/b",)), ["files", "/logs/a/b"]),
        (lambda: Logs(files=tuple(f"/logs/{n}" for n in range(11))), ["files", "10"]),
        (lambda: MountOption(name="m", mount_path="x"), ["mount_path"]),
        (lambda: CustomConfiguration(image=""), ["image", "empty"]),
    ],
)  # fmt: skip
def test_an_invalid_field_raises_an_error_with_field_value_and_rule(build, names):
    with pytest.raises(ConfigurationError) as caught:
        build()
    for name in names:
        assert name in str(caught.value)
    assert "pydantic" not in str(caught.value) and caught.value.__cause__ is None


@pytest.mark.parametrize("cpu", ["1", "2", "0.5", ".5", "1.25", "500m", 2, 0.5])
def test_cpu_is_valid_in_cores_and_millicores(cpu):
    assert Resources(cpu=cpu).cpu == str(cpu)


@pytest.mark.parametrize(
    "image", ["python:3.11", "ccr.ccs.tencentyun.com/ags-image/envd:v0.5.14", "a/b@sha256:" + "0" * 64, "h:5000/x:1"]
)
def test_image_references_are_valid(image):
    assert ToolSpec(name="a", image=image).image == image
    assert ImageSource(image=image).image == image


def test_values_are_frozen():
    spec = ToolSpec(name="a", image="i")
    with pytest.raises(ValidationError, match="frozen"):
        spec.name = "b"


def test_a_spec_is_equal_after_a_json_round_trip():
    spec = ToolSpec(
        name="a",
        image="i",
        mounts=[mount(), StorageMount(name="v", mount_path="/v", source=VolumeSource(name="n"))],
        network=Network(mode="VPC", subnet_ids=["subnet-1"], security_group_ids=["sg-1"]),
        ports=[Port(name="http", port=80)],
        probe=Probe(),
        default_timeout=600,
    )
    assert ToolSpec(**json.loads(spec.model_dump_json())) == spec
    assert TypeAdapter(ToolSpec).validate_python(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    "value",
    [
        Tool(id="sdt-1", name="a", status="A_NEW_STATE", created_at=datetime(2026, 1, 1, tzinfo=timezone.utc)),
        Instance(id="i-1", tool_id="sdt-1", status="RUNNING", metadata={"a": "1"}, timeout=300),
        RunReport(
            result=ExecResult(command="x", exit_code=3, stdout="out"),
            instance_id="i-1",
            tool_id="sdt-1",
            tool_name="a",
            steps=(Step(name="exec", seconds=1.5),),
        ),
    ],
)
def test_responses_and_results_are_equal_after_a_json_round_trip(value):
    assert type(value).model_validate_json(value.model_dump_json()) == value


def test_responses_ignore_unknown_fields():
    assert Tool(id="sdt-1", name="a", status="ACTIVE", colour="red") == Tool(id="sdt-1", name="a", status="ACTIVE")


def test_a_token_is_masked_in_text_and_in_json():
    token = AccessToken(instance_id="i-1", token=SecretStr("sit_secret"), traffic_token=SecretStr("sit_other"))
    for shown in (repr(token), str(token), token.model_dump_json()):
        assert "sit_" not in shown
    assert token.token.get_secret_value() == "sit_secret"


def test_every_public_value_has_a_docstring():
    values = [
        value
        for value in vars(models).values()
        if isinstance(value, type) and value.__module__.startswith(models.__name__)
    ]
    assert values and all(value.__doc__ for value in values)
