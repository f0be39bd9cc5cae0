"""What the run form of the Prefect UI submits for a saved block, and its form fields, for every deployment."""

import os
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.flows import load_flow_from_entrypoint

from ags_flows import AGSConfig, SandboxJob, TencentCloudCredentials

DEPLOYMENTS = yaml.safe_load((Path(__file__).parents[2] / "prefect.yaml").read_text())["deployments"]
NAMES = [one["name"] for one in DEPLOYMENTS]
WITH_CONFIG = [name for name in NAMES if name != "saved-job"]


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


def submit(deployed, name, **parameters):
    """Create a flow run as the form does, and return the parameters that the flow gets."""
    client, deployments, _ = deployed
    deployment = deployments[name]
    body = {"parameters": {**deployment.parameters, **parameters}, "enforce_parameter_schema": True}
    created = client.request("POST", "/deployments/{id}/create_flow_run", path_params={"id": deployment.id}, json=body)
    run = client.read_flow_run(created.json()["id"])
    client.delete_flow_run(run.id)
    return load_flow_from_entrypoint(deployment.entrypoint).validate_parameters(run.parameters)


def reference(deployed, kind):
    return {"$ref": {"block_document_id": str(deployed[2][kind])}}


@pytest.mark.parametrize("name", WITH_CONFIG)
@pytest.mark.parametrize("how", ["chosen block", "name", "fields", "fields with a chosen block"])
def test_a_configuration_is_accepted_in_every_form(deployed, name, how):
    chosen = {
        "chosen block": reference(deployed, "config"),
        "name": "form",
        "fields": {"region": "ap-shanghai"},
        "fields with a chosen block": {"region": "ap-shanghai", "credentials": reference(deployed, "keys")},
    }[how]
    config = submit(deployed, name, config=chosen)["config"]
    assert isinstance(config, AGSConfig) and config.region == "ap-shanghai"


@pytest.mark.parametrize("name", WITH_CONFIG)
def test_the_empty_field_of_the_form_is_the_environment(deployed, name, monkeypatch):
    monkeypatch.setenv("AGS_REGION", "ap-beijing")
    assert submit(deployed, name, config="")["config"].region == "ap-beijing"


def test_a_saved_job_is_accepted(deployed):
    assert submit(deployed, "saved-job", job=reference(deployed, "job"))["job"].command == "true"


def test_wrong_parameters_are_refused_before_a_run_is_created(deployed):
    with pytest.raises(PrefectHTTPStatusError, match="Validation failed for field 'config'"):
        submit(deployed, "run-command", config=7)


def test_every_deployment_has_a_name_of_its_own():
    assert len(set(NAMES)) == len(NAMES)
