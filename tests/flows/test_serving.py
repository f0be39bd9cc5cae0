"""`flow.serve()` ships a flow to another process by value: its parameters have to be understood there."""

import cloudpickle
import pytest
from prefect import Flow

from ags_flows import SandboxJob, flows

PARAMETERS = {
    "provision-and-run": {"command": "true", "tool": {"name": "etl", "image": "python:3.11"}},
    "run-batch": {"items": ["a"], "command": "true", "tool": "etl"},
    "run-batch-shard": {"location": "results/shard-0", "work": {"command": "true"}, "options": {}, "tool": "etl"},
    "swebench-evaluate": {"predictions": "predictions.jsonl", "dataset": "dataset.jsonl"},
    "sync-tools": {"images": ["python:3.11"]},
    "run-job": {"job": SandboxJob(command="true", tool="etl")},
}


@pytest.mark.parametrize(
    "served", [each for each in vars(flows).values() if isinstance(each, Flow)], ids=lambda each: each.name
)
def test_a_served_flow_understands_its_parameters(served):
    shipped = cloudpickle.loads(cloudpickle.dumps(served))
    assert shipped.validate_parameters(PARAMETERS.get(served.name, {})) is not None
