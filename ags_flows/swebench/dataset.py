"""Data sets of instances, in the form of version 5 of the official package: each has its image and its script."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ags_flows.errors import ConfigurationError
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


def read_dataset(dataset: str, split: str) -> tuple[dict[str, Instance], list[str]]:
    """Return the instances by id, and in words what is wrong with others.

    Args:
        dataset: A file of JSON Lines or JSON; or a Parquet file, a directory, or a name, which the official package
            loads (names from the network).
        split: Of a data set that has several.

    Raises:
        ConfigurationError: It cannot be read, or no instance of it can be evaluated.
    """
    problems: list[str] = []
    path = Path(dataset)
    records: Iterable[tuple[str, Any]]
    if path.suffix in (".json", ".jsonl"):
        records = read_records(path, "dataset", problems)
    else:
        records = _loaded(dataset, split)
    instances: dict[str, Instance] = {}
    for place, value in records:
        problem = _problem(value)
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


def _problem(value: Any) -> str:
    if not isinstance(value, dict) or not value.get("instance_id"):
        return "it has no instance_id."
    missing = [name for name in NEEDED if value.get(name) in (None, "")]
    if missing:
        return f"{value['instance_id']} lacks {', '.join(missing)}: it is of another version of the data set."
    if value["log_parser"] not in harness().PARSER_REGISTRY:
        return f"{value['instance_id']}: the installed swebench has no parser {value['log_parser']!r}."
    if (value.get("image_assets") or "{}") not in ("{}", {}, "null"):
        return f"{value['instance_id']} has image_assets, which are not supported."
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
