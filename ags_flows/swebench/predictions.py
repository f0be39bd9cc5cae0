"""Predictions: patches for instances, as models write them."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ags_flows.errors import ConfigurationError


@dataclass(frozen=True)
class Prediction:
    """One patch.

    Attributes:
        instance_id: For which instance.
        patch: A unified diff; empty where the model found none.
        model: Who wrote it.
        place: Where it was read, for messages.
    """

    instance_id: str
    patch: str
    model: str
    place: str

    def official(self) -> dict[str, str]:
        """Return it with the official package's names."""
        return {"instance_id": self.instance_id, "model_patch": self.patch, "model_name_or_path": self.model}


def read_predictions(path: Path) -> tuple[list[Prediction], list[str]]:
    """Return the predictions of a file, the first for each instance, and in words what is wrong with others.

    Args:
        path: JSON Lines, or JSON: a list, or an object of predictions by instance.

    Raises:
        ConfigurationError: The file cannot be read, or has no prediction at all.
    """
    problems: list[str] = []
    found: dict[str, Prediction] = {}
    for place, value in read_records(path, "predictions", problems):
        prediction = _prediction(place, value, problems)
        if prediction is None:
            continue
        first = found.setdefault(prediction.instance_id, prediction)
        if first is not prediction:
            same = "the same patch" if first.patch == prediction.patch else "another patch, which is left out"
            problems.append(f"{place}: {prediction.instance_id} is there already ({first.place}), with {same}.")
    if not found:
        raise ConfigurationError(
            f"predictions={str(path)!r}: there is no prediction in it. {' '.join(problems[:3])}".rstrip(),
            hint='Write one a line: {"instance_id": ..., "model_patch": ..., "model_name_or_path": ...}.',
        )
    models = {prediction.model for prediction in found.values()}
    if len(models) > 1:
        raise ConfigurationError(
            f"predictions={str(path)!r}: they are of {len(models)} models: {', '.join(sorted(models)[:5])}.",
            hint="A report is about one: give each its own file.",
        )
    return list(found.values()), problems


def read_records(path: Path, what: str, problems: list[str]) -> Iterable[tuple[str, Any]]:
    """Return the values of a file of JSON Lines or JSON, each with the place where it is.

    Args:
        path: JSON, if its name ends so; else JSON Lines.
        what: The parameter's name.
        problems: Gets the lines that are not JSON.

    Raises:
        ConfigurationError: The file cannot be read.
    """
    try:
        content = path.expanduser().read_bytes().removeprefix(codecs.BOM_UTF8)
        if path.suffix == ".json":
            whole = json.loads(content)
            values = list(whole.values()) if isinstance(whole, dict) else whole
            if not isinstance(values, list):
                raise ValueError(f"a list or an object is needed, not {str(whole)[:40]!r}")
            return [(f"{path.name}, entry {number}", value) for number, value in enumerate(values, start=1)]
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{what}={str(path)!r} cannot be read: {error}.") from error
    records: list[tuple[str, Any]] = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            place = f"{path.name}, line {number}"
            try:
                records.append((place, json.loads(line)))
            except ValueError as error:
                problems.append(f"{place} is not JSON: {error}.")
    return records


def _prediction(place: str, value: Any, problems: list[str]) -> Prediction | None:
    identifier = value.get("instance_id") if isinstance(value, dict) else None
    if not isinstance(identifier, str) or not identifier:
        problems.append(f"{place} has no instance_id.")
        return None
    patch, model = value.get("model_patch"), value.get("model_name_or_path")
    if "model_patch" not in value or not isinstance(patch, (str, type(None))):
        problems.append(f"{place}: {identifier} has no model_patch.")
        return None
    try:
        (patch or "").encode()
    except UnicodeError as error:
        problems.append(f"{place}: the model_patch of {identifier} is no text: {error}.")
        return None
    return Prediction(identifier, patch or "", str(model or "None"), place)
