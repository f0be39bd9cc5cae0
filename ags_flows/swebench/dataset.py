"""Data sets of instances, in the form of version 5 of the official package: each has its image and its script."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ags_flows.errors import ConfigurationError
from ags_flows.models import CustomConfiguration, ImageRegistryType
from ags_flows.swebench.assets import assets_of
from ags_flows.swebench.official import harness
from ags_flows.swebench.predictions import read_records

NEEDED = (
    "instance_id",
    "image",
    "repo",
    "version",
    "FAIL_TO_PASS",
    "PASS_TO_PASS",
    "log_parser",
    "eval_type",
    "eval_script",
)

Instance = dict[str, Any]

_NAME = re.compile(r"\w[\w.@+-]*")


def read_dataset(dataset: str, split: str, registry: ImageRegistryType) -> tuple[dict[str, Instance], list[str]]:
    """Return the instances by id, and in words what is wrong with others.

    Args:
        dataset: A file of JSON Lines or JSON; or a Parquet file, a directory, or a name, which the official package
            loads (names from the network).
        split: Of a data set that has several.
        registry: Where the images are.

    Raises:
        ConfigurationError: It cannot be read, or no instance of it can be evaluated.
    """
    # Without it no instance can be judged, and that is what has to be said.
    harness()
    problems: list[str] = []
    path = Path(dataset)
    records: Iterable[tuple[str, Any]]
    if path.suffix in (".json", ".jsonl"):
        records = read_records(path, "dataset", problems)
    else:
        records = _loaded(dataset, split)
    instances: dict[str, Instance] = {}
    for place, value in records:
        problem = _problem(value, registry)
        if problem:
            problems.append(f"{place}: {problem}")
        elif value["instance_id"] in instances:
            problems.append(f"{place}: {value['instance_id']} is there already; this one is left out.")
        else:
            instances[value["instance_id"]] = value
    if not instances:
        raise ConfigurationError(
            f"dataset={dataset!r}: no instance of it can be evaluated. {' '.join(problems[:2])}".rstrip(),
            hint=f"Each needs the fields {', '.join(NEEDED)}: data sets for swebench 5 have them.",
        )
    return instances, problems


def _problem(value: Any, registry: ImageRegistryType) -> str:
    name = value.get("instance_id") if isinstance(value, dict) else None
    if not isinstance(name, str) or not name:
        return "it has no instance_id."
    if not _NAME.fullmatch(name):
        return f"{name!r} is no instance_id: its logs and its verdict could not be kept under this name."
    missing = [field for field in NEEDED if field not in value or (field != "version" and value[field] in (None, ""))]
    if missing:
        return f"{name} lacks {', '.join(missing)}: it is of another version of the data set."
    try:
        spec = harness().make_test_spec(value)
        if spec.log_parser not in harness().PARSER_REGISTRY:
            return f"{name}: the installed swebench has no parser {spec.log_parser!r}."
        harness().EvalType(spec.eval_type)
        assets_of(value)
        CustomConfiguration(image=spec.image, image_registry_type=registry)
    except (ValueError, TypeError, AttributeError) as error:
        return f"{name} is damaged: {str(error).splitlines()[0]}"
    return ""


def _loaded(dataset: str, split: str) -> Iterable[tuple[str, Any]]:
    try:
        loaded = harness().load_swebench_dataset(dataset, split)
    except Exception as error:  # noqa: BLE001 - whatever the loader and the network come up with
        raise ConfigurationError(
            f"dataset={dataset!r} cannot be loaded: {str(error).splitlines()[0] if str(error) else error!r}",
            hint="Give a local file (.jsonl, .json or .parquet) where there is no network.",
        ) from error
    return [(f"{dataset}, entry {number}", dict(value)) for number, value in enumerate(loaded, start=1)]
