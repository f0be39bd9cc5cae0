"""Every field of every value that callers write takes what it gets, or refuses it by its name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ags_flows import AGSConfig, SandboxJob, TencentCloudCredentials, models
from ags_flows.errors import ConfigurationError
from ags_flows.models import BatchOptions, CodeContext, Probe, Resources, ToolSpec
from ags_flows.models.value import Given
from tests.arguments import ANYTHING, SURELY_WRONG

REQUIRED = {
    "ToolSpec": {"name": "x"},
    "Port": {"name": "x", "port": 80},
    "ImageSource": {"image": "x:1"},
    "CosSource": {"bucket": "x"},
    "CfsSource": {"file_system_id": "x"},
    "AgentBucketSource": {"library_id": "x", "space_id": "x"},
    "VolumeTemplateSource": {"name": "x"},
    "StorageMount": {"name": "x", "mount_path": "/x", "source": {"kind": "cfs", "file_system_id": "x"}},
    "MountOption": {"name": "x"},
    "SandboxJob": {"command": "true", "tool": "x"},
}


def written(kind=Given):
    for one in kind.__subclasses__():
        yield one
        yield from written(one)


MODELS = [*written(), AGSConfig, TencentCloudCredentials, SandboxJob]
FIELDS = [(model, name) for model in MODELS for name in model.model_fields]


def fields_of(model, **fields):
    return {**REQUIRED.get(model.__name__, {}), **fields}


def test_all_specifications_are_among_them():
    known = {model.__name__ for model in MODELS}
    assert {"BatchOptions", "CustomConfiguration", "Network", "Prices", "Probe", "ReapRules", "ToolSpec"} <= known
    assert all(hasattr(models, name) for name in REQUIRED if name != "SandboxJob")


@pytest.mark.parametrize(("model", "name"), FIELDS, ids=lambda one: getattr(one, "__name__", one))
def test_a_wrong_value_is_refused_by_the_name_of_its_field(model, name):
    for value in SURELY_WRONG:
        with pytest.raises(ConfigurationError) as caught:
            model(**fields_of(model, **{name: value}))
        assert name in str(caught.value)
        assert len(str(caught.value)) < 3000


@pytest.mark.parametrize("model", MODELS, ids=lambda one: one.__name__)
@given(data=st.data())
def test_any_value_is_taken_or_refused_by_the_name_of_its_field(model, data):
    name = data.draw(st.sampled_from(sorted(model.model_fields)))
    try:
        model(**fields_of(model, **{name: data.draw(ANYTHING)}))
    except ConfigurationError as error:
        assert name in str(error) or "volume_id" in str(error)


@pytest.mark.parametrize("model", MODELS, ids=lambda one: one.__name__)
def test_an_unknown_field_is_named(model):
    with pytest.raises(ConfigurationError, match="nosuch"):
        model(**fields_of(model, nosuch=1))


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: AGSConfig(regoin="ap-shanghai"), "AGSConfig has no field 'regoin'. Did you mean 'region'?"),
        (lambda: Resources(memory=2), "memory: 2 is not an amount of memory"),
        (lambda: ToolSpec(name="x", env={"A=B": "x"}), "env: 'A=B' is not a valid variable name"),
        (lambda: ToolSpec(name="x", env={"BIG": "x" * 300_000}), "env: 'BIG' has a text of more than 100,000 bytes"),
        (lambda: ToolSpec(name="x", env={"A": "'" * 30_000}), "env: A has 150,002 bytes as the shell quotes it"),
        (lambda: ToolSpec(name="x", tags={"": "x"}), "tags: '' must be a name"),
        (lambda: ToolSpec(name="x", command=[5] * 1000), "and 995 more"),
        (lambda: ToolSpec(name="x", resources={1: 2}), "resources: 1 is not a text"),
        (lambda: Probe(timeout_ms=True), "timeout_ms: must not be True"),
        (lambda: BatchOptions(lease="soon"), "lease: 'soon' is not a duration"),
        (lambda: BatchOptions(results=5), "results: must be a path or a URL, got 5"),
        (lambda: CodeContext(id="../x"), "id: must be a CodeContext or its id, got '../x'"),
    ],
)
def test_the_message_has_the_field_and_its_rule(build, said):
    with pytest.raises(ConfigurationError) as caught:
        build()
    assert said in str(caught.value)


def test_variables_of_a_specification_are_converted_as_those_of_a_command():
    assert ToolSpec(name="x", env={"PORT": 8000, "DEBUG": True}).env == {"PORT": "8000", "DEBUG": "true"}
