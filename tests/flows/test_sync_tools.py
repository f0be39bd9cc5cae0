"""One tool for each image of a list, in a real account of the emulator."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ags_flows.errors import ConfigurationError, SyncFailedError
from ags_flows.flows import sync_tools
from ags_flows.lifecycle.sync_plan import tool_name_of
from ags_flows.models import ToolSpec
from ags_flows.models.fields import check_tool_name
from ags_flows.tasks import create_tool

IMAGES = ["python:3.11", "registry.example.com/team/etl:v1", "node:20"]


@pytest.fixture
def sync(ags_config, prefect_server):
    return lambda images, **options: sync_tools(images, config=ags_config, **options)


@pytest.fixture
def names(ags_config):
    return lambda: {tool.name for tool in ags_config.control_plane().list_tools() if "managed-by" in tool.tags}


@given(st.text(min_size=1).filter(str.strip), st.text(min_size=1).filter(str.strip))
def test_a_name_is_legal_and_different_for_each_image(one, other):
    assert check_tool_name(tool_name_of(one, "etl-")) == tool_name_of(one, "etl-")
    assert (tool_name_of(one) == tool_name_of(other)) == (one == other)


def test_a_name_contains_the_image():
    assert tool_name_of("registry.example.com/team/etl:v1").startswith("team-etl-v1-")
    long = tool_name_of(f"swebench/sweb.eval.x86_64.{'a' * 60}_django-11099:latest", "swe-")
    assert len(long) <= 50 and long.startswith("swe-") and "django-11099-latest" in long


def test_a_list_is_made_and_found_in_step_and_its_surplus_deleted_only_where_asked(sync, names, ags_config):
    made = sync([*IMAGES, "python:3.11"], prefix="etl-")
    assert [tool.outcome for tool in made.tools] == ["created"] * 3
    assert names() == {tool.name for tool in made.tools}
    again = sync(IMAGES, prefix="etl-")
    assert {(tool.drift, tool.outcome) for tool in again.tools} == {("in step", "found")}
    less = sync(IMAGES[:1], prefix="etl-")
    assert sorted(tool.drift for tool in less.tools) == ["in step", "surplus", "surplus"]
    assert len(names()) == 3
    sync(IMAGES[:1], prefix="etl-", delete=True)
    assert names() == {tool_name_of("python:3.11", "etl-")}


def test_only_what_this_group_owns_is_deleted(sync, names, ags_config):
    create_tool.fn(ToolSpec(name="by-hand", image="python:3.11"), config=ags_config)
    sync(["python:3.11"], group="one", prefix="one-")
    sync(["node:20"], group="two", prefix="two-", delete=True)
    assert names() == {"by-hand", tool_name_of("python:3.11", "one-"), tool_name_of("node:20", "two-")}


def test_a_template_that_changes_is_followed(sync, ags_config):
    sync(["python:3.11"], template=ToolSpec(name="x", env={"MODE": "slow"}))
    dry = sync(["python:3.11"], template=ToolSpec(name="x", env={"MODE": "fast"}), dry_run=True)
    assert [(tool.drift, tool.fields, tool.outcome) for tool in dry.tools] == [("differs", ("env",), "")]
    done = sync(["python:3.11"], template=ToolSpec(name="x", env={"MODE": "fast"}))
    assert [(tool.drift, tool.outcome) for tool in done.tools] == [("differs", "updated")]


def test_one_image_that_cannot_be_pulled_does_not_hinder_the_others(sync, names):
    with pytest.raises(SyncFailedError, match="1 of 2 tools .* no.invalid") as caught:
        sync(["no.invalid/x:1", "python:3.11"])
    assert [bool(tool.problem) for tool in caught.value.report.tools] == [True, False]
    assert tool_name_of("python:3.11") in names()


def test_a_list_comes_from_a_file_with_comments(sync, tmp_path):
    file = tmp_path / "images.txt"
    file.write_text("# base\npython:3.11\n\nnode:20  # for pages\n")
    assert [tool.image for tool in sync(str(file), dry_run=True).tools] == ["python:3.11", "node:20"]


@pytest.mark.parametrize(
    ("images", "options", "told"),
    [
        ([], {}, "images: the list is empty"),
        (["python:3.11", " "], {}, "images: number 2 is empty"),
        ("nowhere.txt", {}, "images: 'nowhere.txt' cannot be read"),
        (["python:3.11"], {"prefix": "a.b"}, "prefix: 'a.b'"),
    ],
)
def test_an_invalid_list_changes_nothing(sync, names, images, options, told):
    with pytest.raises(ConfigurationError, match=told):
        sync(images, **options)
    assert names() == set()


def test_images_are_cached_ahead_where_asked(sync, ags_config):
    sync(["registry.example.com/team/etl:v1"], precache=True)
    answer = ags_config.control_plane().call("DescribePreCacheImageList", {})
    assert "registry.example.com/team/etl:v1" in str(answer)
