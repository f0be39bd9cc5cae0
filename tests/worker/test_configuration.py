"""The template of work pools: what a form shows, and what of the environment reaches a flow run."""

from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_KEY, PREFECT_API_URL, PREFECT_LOGGING_LEVEL, temporary_settings

from ags_flows.errors import ConfigurationError
from ags_flows.worker import AGSWorker, AGSWorkerJobConfiguration, AGSWorkerVariables


def test_every_variable_of_the_template_is_a_field_of_the_configuration_and_has_a_description():
    template = AGSWorker.get_default_base_job_template()
    properties = template["variables"]["properties"]
    assert set(template["job_configuration"]) == set(AGSWorkerJobConfiguration.model_fields)
    assert set(properties) == set(AGSWorkerVariables.model_fields)
    assert all(field.get("description") for field in properties.values())


@pytest.mark.parametrize(
    "wrong", [{"lease": "1s"}, {"cpu": "many"}, {"image": "no image"}, {"timeout": 0}, {"network": "X"}]
)
def test_a_variable_that_breaks_a_rule_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(ConfigurationError, match=f"^The job configuration is not valid: {name}: ") as caught:
        AGSWorkerJobConfiguration(**wrong)
    assert "pydantic" not in str(caught.value)


def prepared(**fields):
    configuration = AGSWorkerJobConfiguration(**fields)
    configuration.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="run"), worker_name="worker")
    return configuration


def test_the_environment_has_the_api_the_template_and_the_run_and_nothing_else_of_the_worker():
    settings = {PREFECT_API_URL: "http://127.0.0.1:1/api", PREFECT_API_KEY: "key", PREFECT_LOGGING_LEVEL: "ERROR"}
    with temporary_settings(settings):
        found = prepared(env={"OWN": "1", "PREFECT_LOGGING_LEVEL": "DEBUG"}).environment()
        moved = prepared(api_url="https://prefect.example.com/api").environment()
    assert found["PREFECT_API_URL"] == "http://127.0.0.1:1/api"
    assert (found["PREFECT_API_KEY"], found["OWN"], found["PREFECT_LOGGING_LEVEL"]) == ("key", "1", "DEBUG")
    others = {name for name in found if not name.startswith("PREFECT__")}
    assert others == {"PREFECT_API_URL", "PREFECT_API_KEY", "OWN", "PREFECT_LOGGING_LEVEL"}
    assert moved["PREFECT_API_URL"] == "https://prefect.example.com/api"
