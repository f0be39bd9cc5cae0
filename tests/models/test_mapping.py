"""Prefect's `map` treats values and blocks as constants."""

import inspect

import pytest
from prefect import flow, task, unmapped
from prefect.utilities.collections import isiterable
from pydantic import BaseModel

from ags_flows import models, tasks
from ags_flows.blocks import AGSConfig, TencentCloudCredentials
from ags_flows.job import SandboxJob
from ags_flows.models.answers import Answer
from ags_flows.models.value import Value


def values():
    pending, found = [Value, Answer], []
    while pending:
        one = pending.pop()
        found.append(one)
        pending += one.__subclasses__()
    return found


@pytest.mark.parametrize(
    "model", [*values(), AGSConfig, TencentCloudCredentials, SandboxJob], ids=lambda one: one.__name__
)
def test_values_and_blocks_are_not_iterable(model):
    made = model.model_construct()
    assert not isiterable(made)
    assert dict(made) == {name: getattr(made, name) for name in dict(BaseModel.__iter__(made))}


def test_all_public_models_are_values():
    public = [one for one in vars(models).values() if inspect.isclass(one) and hasattr(one, "model_fields")]
    assert public and not [one for one in public if isiterable(one.model_construct())]


@pytest.mark.usefixtures("prefect_server")
def test_a_command_is_mapped_over_a_list_in_one_instance(ags_config):
    started = tasks.start_instance.fn("code-interpreter-v1", config=ags_config)
    instance = tasks.wait_instance_running.fn(started, config=ags_config)

    @task
    def name(config, number):
        return type(config).__name__, number

    @flow
    def mapped():
        commands = ["echo a", "echo b", "echo c"]
        outputs = tasks.exec_command.map(instance, commands, config=ags_config).result()
        again = tasks.exec_command.map(unmapped(instance), commands, config=unmapped(ags_config)).result()
        assert name.map(ags_config, [1, 2]).result() == [("AGSConfig", 1), ("AGSConfig", 2)]
        return [one.stdout for one in outputs], [one.stdout for one in again]

    assert mapped() == (["a\n", "b\n", "c\n"], ["a\n", "b\n", "c\n"])
