"""`config` as a block, as the name of a saved block, or as nothing."""

import asyncio

import pytest

from ags_flows import AGSConfig
from ags_flows.blocks import resolve_config
from ags_flows.errors import ConfigurationError

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_a_block_is_returned_as_it_is():
    config = AGSConfig(region="ap-shanghai")
    assert resolve_config(config) is config


@pytest.mark.parametrize("nothing", [None, "", " "])
def test_nothing_is_the_environment(nothing, monkeypatch):
    monkeypatch.setenv("AGS_REGION", "ap-beijing")
    assert resolve_config(nothing).region == "ap-beijing"


@pytest.mark.parametrize("name", ["chosen-by-name", "ags-config/chosen-by-name"])
def test_a_name_loads_the_saved_block(name):
    AGSConfig(region="ap-shanghai").save("chosen-by-name", overwrite=True)

    async def inside_of_a_loop():
        return resolve_config(name)

    assert resolve_config(name).region == asyncio.run(inside_of_a_loop()).region == "ap-shanghai"


def test_an_unknown_name_is_an_error_that_names_the_block():
    with pytest.raises(ConfigurationError, match="no AGS Config block named 'nowhere'"):
        resolve_config("nowhere")
