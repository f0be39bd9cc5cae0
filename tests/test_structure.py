"""Imports point one way, the public surface is complete, and files stay small."""

import ast
import re
from pathlib import Path

import pytest

import ags_flows

PACKAGE = Path(ags_flows.__file__).parent

LAYERS = [
    {"errors", "ownership"},
    {"models"},
    {"usage"},
    {"cloud"},
    {"blocks"},
    {"durable", "transfer", "run"},
    {"lifecycle"},
    {"reaping"},
    {"tasks"},
    {"functions"},
    {"runtime", "session"},
    {"job", "swerex", "worker"},
    {"batch"},
    {"swebench"},
    {"flows", "collection"},
    {"testing", "demo", "verify"},
    {"cli"},
]
"""From the bottom up. A module imports from layers below its own, or from its own package."""

MOST_LINES = 400

LONGER = {
    "ags_flows/ownership.py": "the rules of ownership, which the model checks together",
}
"""Files with more lines, and why they are not split."""

VENDORS = ("tencentcloud", "e2b", "e2b_code_interpreter")


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def noun(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path):
    """Every imported module's name, those inside of functions too, but not those for type checkers alone."""
    tree = ast.parse(path.read_text())
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            skipped.update(ast.walk(node))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(name):
    return next((index for index, names in enumerate(LAYERS) if name in names), None)


def own_imports(path):
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "ags_flows" and len(parts) > 1:
            yield parts[1]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_layers_below(path):
    if noun(path) in ("emulator", "__init__"):
        return
    mine = layer(noun(path))
    assert mine is not None, f"{noun(path)} has no layer: add it to LAYERS"
    for name in own_imports(path):
        theirs = layer(name)
        if name == noun(path) or theirs is None:
            continue
        assert theirs < mine, f"{path.name} imports {name}, which is not below it"


@pytest.mark.parametrize("path", sorted((PACKAGE / "emulator").rglob("*.py")), ids=str)
def test_the_emulator_imports_nothing_of_the_client_side(path):
    assert set(own_imports(path)) <= {"emulator"}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_vendor_sdks_are_imported_by_the_cloud_layer_alone(path):
    if noun(path) in ("cloud", "emulator"):
        return
    foreign = [name for name in imports_of(path) if name.split(".")[0] in VENDORS]
    assert not foreign


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_private_part_of_prefect_is_used(path):
    assert not [name for name in imports_of(path) if name.startswith("prefect._")]


@pytest.mark.parametrize("module", ["ags_flows", "ags_flows.tasks", "ags_flows.flows", "ags_flows.blocks"])
def test_public_names_are_sorted_and_there(module):
    loaded = __import__(module, fromlist=["__all__"])
    assert list(loaded.__all__) == sorted(loaded.__all__)
    for name in loaded.__all__:
        assert getattr(loaded, name) is not None


def test_every_path_in_the_map_of_the_architecture_exists():
    root = PACKAGE.parent
    text = (root / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`((?:ags_flows|docs|tests)/[\w/.]+)`", text))
    assert [path for path in named if not (root / path).exists()] == []
    packages = {f"ags_flows/{noun(path)}" for path in modules() if len(path.relative_to(PACKAGE).parts) > 1}
    assert packages - named == set(), "docs/architecture.md does not name a package"


def test_files_stay_small():
    root = PACKAGE.parent
    lines = {
        str(path.relative_to(root)): len(path.read_text(encoding="utf-8").splitlines())
        for directory in ("ags_flows", "tests", "bench", "examples", "blocks", "deployments")
        for path in (root / directory).rglob("*.py")
    }
    assert {path for path, count in lines.items() if count > MOST_LINES} == set(LONGER), "split it, or correct LONGER"
