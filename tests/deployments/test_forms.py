"""What the run form of the Prefect UI submits for a saved block, and its form fields, for every deployment."""

import os
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.flows import load_flow_from_entrypoint

from ags_flows import AGSConfig, SandboxJob, TencentCloudCredentials
from ags_flows.flows import usage_report

DEPLOYMENTS = yaml.safe_load((Path(__file__).parents[2] / "prefect.yaml").read_text())["deployments"]
NAMES = [one["name"] for one in DEPLOYMENTS]
WITH_CONFIG = [name for name in NAMES if name != "saved-job"]


pytestmark = pytest.mark.xdist_group("forms")


@pytest.fixture(scope="module")
def deployed(prefect_server, serving):
    """The deployments of prefect.yaml on the server, by their names, and the ids of saved blocks."""
    with pytest.MonkeyPatch.context() as patch, get_client(sync_client=True) as client:
        for name in [name for name in os.environ if name.startswith("AGS_")]:
            patch.delenv(name)
        config = AGSConfig(region="ap-shanghai").save("form", overwrite=True)
        keys = TencentCloudCredentials(secret_id="AKID").save("form", overwrite=True)
        job = SandboxJob(command="true", tool="base").save("form", overwrite=True)
        known = {one.name: one for one in serving.read_deployments().values()}
        ids = {name: one.apply() for name, one in known.items()}
        yield (
            client,
            {name: client.read_deployment(id) for name, id in ids.items()},
            {"config": config, "job": job, "keys": keys},
        )
        for id in ids.values():
            client.delete_deployment(id)


NEEDED = {"machines": {"location": "results/shard-0", "work": {"command": "true"}, "options": {}, "tool": "etl"}}
"""Parameters of deployments that only other flow runs start."""


def submit(deployed, name, **parameters):
    """Create a flow run as the form does, and return the parameters that the flow gets."""
    client, deployments, _ = deployed
    deployment = deployments[name]
    given = {**deployment.parameters, **NEEDED.get(name, {}), **parameters}
    body = {"parameters": given, "enforce_parameter_schema": True}
    created = client.request("POST", "/deployments/{id}/create_flow_run", path_params={"id": deployment.id}, json=body)
    run = client.read_flow_run(created.json()["id"])
    client.delete_flow_run(run.id)
    return load_flow_from_entrypoint(deployment.entrypoint).validate_parameters(run.parameters)


KEPT = {
    "title",
    "description",
    "type",
    "properties",
    "required",
    "default",
    "items",
    "anyOf",
    "enum",
    "block_type_slug",
}
"""Keywords of a schema that the form of the UI keeps."""


def problems_of_the_form(deployed, name, **parameters):
    """Return what the form finds wrong before it submits: it sends its own reading of the schema, to be validated."""
    client, deployments, _ = deployed
    deployment = deployments[name]

    def read(schema):
        if isinstance(schema, list):
            return [read(one) for one in schema]
        if not isinstance(schema, dict) or "$ref" in schema:
            return schema
        kept = {key: read(one) for key, one in schema.items() if key in KEPT and key != "properties"}
        if "properties" in schema:
            kept["properties"] = {key: read(one) for key, one in schema["properties"].items()}
        return kept

    schema = deployment.parameter_openapi_schema
    given = {**read(schema), "definitions": {key: read(one) for key, one in schema["definitions"].items()}}
    body = {"schema": given, "values": {**deployment.parameters, **NEEDED.get(name, {}), **parameters}}
    return client.request("POST", "/ui/schemas/validate", json=body).json()["errors"]


def reference(deployed, kind):
    return {"$ref": {"block_document_id": str(deployed[2][kind])}}


WAYS = ("name", "fields", "fields with a chosen block")


@pytest.mark.parametrize(
    ("name", "how"),
    # Each form in the way of most users, and in one of the others.
    [pair for number, name in enumerate(WITH_CONFIG) for pair in ((name, "chosen block"), (name, WAYS[number % 3]))],
)
def test_a_configuration_is_accepted_in_every_form(deployed, name, how):
    chosen = {
        "chosen block": reference(deployed, "config"),
        "name": "form",
        "fields": {"region": "ap-shanghai"},
        "fields with a chosen block": {"region": "ap-shanghai", "credentials": reference(deployed, "keys")},
    }[how]
    assert problems_of_the_form(deployed, name, config=chosen) == []
    config = submit(deployed, name, config=chosen)["config"]
    assert isinstance(config, AGSConfig) and config.region == "ap-shanghai"


@pytest.mark.parametrize("name", WITH_CONFIG)
def test_the_empty_field_of_the_form_is_the_environment(deployed, name, monkeypatch):
    monkeypatch.setenv("AGS_REGION", "ap-beijing")
    assert submit(deployed, name, config="")["config"].region == "ap-beijing"


@pytest.mark.parametrize("how", ["chosen block", "name", "fields"])
def test_a_deployment_keeps_a_configuration_among_its_parameters(deployed, how):
    given = {"chosen block": AGSConfig.load("form"), "name": "form", "fields": {"region": "ap-shanghai"}}[how]
    deployment = usage_report.to_deployment("with-config", parameters={"config": given})
    client, identifier = deployed[0], deployment.apply()
    known = client.read_deployment(identifier)
    client.delete_deployment(identifier)
    assert usage_report.validate_parameters(known.parameters)["config"].region == "ap-shanghai"


def test_a_saved_job_is_accepted(deployed):
    assert problems_of_the_form(deployed, "saved-job", job=reference(deployed, "job")) == []
    assert submit(deployed, "saved-job", job=reference(deployed, "job"))["job"].command == "true"


def test_wrong_parameters_are_refused_before_a_run_is_created(deployed):
    with pytest.raises(PrefectHTTPStatusError, match="Validation failed for field 'config'"):
        submit(deployed, "run-command", config=7)


def test_every_deployment_has_a_different_name():
    assert len(set(NAMES)) == len(NAMES)
