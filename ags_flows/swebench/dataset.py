"""Data sets of instances in the format of version 5 of the official package, which has images and scripts."""

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
    """Return the valid instances by id, and a list of human-readable problems with the others.

    Args:
        dataset: A file of JSON Lines or JSON. The official package loads Parquet files, directories, and names (from
            the network).
        split: The split, for a data set that has several.
        registry: Type of the registry of the images.

    Raises:
        ConfigurationError: The data set cannot be read, has no valid instance, or `swebench` is not installed.
    """
    # First, so that a missing package is reported as such and not as invalid instances.
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
            problems.append(f"{place}: {value['instance_id']} is a duplicate and is ignored.")
        else:
            instances[value["instance_id"]] = value
    if not instances:
        raise ConfigurationError(
            f"dataset={dataset!r}: it has no instance that can be evaluated. {' '.join(problems[:2])}".rstrip(),
            hint=f"Each instance needs the fields {', '.join(NEEDED)}. Data sets for swebench 5 have them.",
        )
    return instances, problems


def _problem(value: Any, registry: ImageRegistryType) -> str:
    name = value.get("instance_id") if isinstance(value, dict) else None
    if not isinstance(name, str) or not name:
        return "the instance has no instance_id."
    if not _NAME.fullmatch(name):
        return f"{name!r} is not a valid instance_id: it cannot be a file name for logs and verdict."
    missing = [field for field in NEEDED if field not in value or (field != "version" and value[field] in (None, ""))]
    if missing:
        return f"{name} lacks {', '.join(missing)}: the data set has another version."
    try:
        spec = harness().make_test_spec(value)
        if spec.log_parser not in harness().PARSER_REGISTRY:
            return f"{name}: the installed swebench has no parser {spec.log_parser!r}."
        harness().EvalType(spec.eval_type)
        assets_of(value)
        CustomConfiguration(image=spec.image, image_registry_type=registry)
    except (ValueError, TypeError, AttributeError) as error:
        return f"{name} is invalid: {str(error).splitlines()[0]}"
    return ""


def _loaded(dataset: str, split: str) -> Iterable[tuple[str, Any]]:
    try:
        loaded = harness().load_swebench_dataset(dataset, split)
    except Exception as error:  # noqa: BLE001 - the loader and the network may raise anything
        raise ConfigurationError(
            f"dataset={dataset!r} cannot be loaded: {str(error).splitlines()[0] if str(error) else error!r}",
            hint="Use a local file (.jsonl, .json or .parquet) if there is no network.",
        ) from error
    return [(f"{dataset}, entry {number}", dict(value)) for number, value in enumerate(loaded, start=1)]
