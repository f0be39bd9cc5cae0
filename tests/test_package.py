"""What importing the package gives, and what it costs."""

import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from prefect.blocks.core import Block

import ags_flows
from ags_flows import collection

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def test_completion_offers_the_public_names_and_packages():
    assert sorted(dir(ags_flows)) == sorted([*ags_flows.__all__, "flows", "models", "tasks"])
    for name in dir(ags_flows):
        assert getattr(ags_flows, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ags_flows.nothing  # noqa: B018


def test_importing_the_package_loads_nothing_that_is_not_used():
    code = "import sys, ags_flows; print([name for name in ('prefect', 'e2b', 'tencentcloud') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_prefect_finds_every_block_type():
    """By the entry point when a server starts, and by `prefect block register -m ags_flows`."""
    entry_point = re.search(r'"prefect.collections"\]\nags_flows = "([\w.]+)"', PROJECT.read_text()).group(1)
    assert import_module(entry_point) is collection
    registered = {
        found for _, found in inspect.getmembers(ags_flows) if inspect.isclass(found) and issubclass(found, Block)
    }
    assert registered == {getattr(collection, name) for name in collection.__all__}


def test_blocks_show_nothing_from_another_host():
    for name in collection.__all__:
        block = getattr(collection, name)
        assert block._logo_url is None
        assert block.get_description()
