"""What forms of the Prefect UI show of values: every field is described, and the needed ones come first."""

from collections.abc import Iterator

import pytest

from ags_flows import AGSConfig, SandboxJob, TencentCloudCredentials
from ags_flows.models import Prices, ReapRules, ToolSpec


def undescribed(schema) -> Iterator[str]:
    """Yield the fields of a model, and of the models in it, that have no description."""
    for title, definition in [(schema["title"], schema), *schema.get("$defs", {}).items()]:
        for name, field in definition.get("properties", {}).items():
            if not field.get("description", "").strip():
                yield f"{title}.{name}"


@pytest.mark.parametrize(
    "model",
    [ToolSpec, ReapRules, Prices, AGSConfig, SandboxJob, TencentCloudCredentials],
    ids=lambda one: one.__name__,
)
def test_every_field_is_described(model):
    assert list(undescribed(model.model_json_schema())) == []


@pytest.mark.parametrize(
    ("model", "first"),
    [
        (ToolSpec, ["name", "image"]),
        (AGSConfig, ["region", "credentials", "tool_id"]),
        (SandboxJob, ["command", "tool", "image"]),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_the_needed_fields_come_first(model, first):
    assert list(model.model_json_schema()["properties"])[: len(first)] == first
