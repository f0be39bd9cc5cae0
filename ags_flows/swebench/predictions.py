"""Read predictions: the patches that a model wrote for instances."""

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
        instance_id: The instance.
        patch: A unified diff; empty if the model found none.
        model: Name of the model.
        place: File and line of the prediction, for messages.
    """

    instance_id: str
    patch: str
    model: str
    place: str

    def official(self) -> dict[str, str]:
        """Return the prediction with the field names of the official package."""
        return {"instance_id": self.instance_id, "model_patch": self.patch, "model_name_or_path": self.model}


def read_predictions(path: Path) -> tuple[list[Prediction], list[str]]:
    """Return the first prediction for each instance, and a list of human-readable problems with the others.

    Args:
        path: A file of JSON Lines or JSON (a list, or an object of predictions by instance).

    Raises:
        ConfigurationError: The file cannot be read, has no valid prediction, or has predictions of several models.
    """
    problems: list[str] = []
    found: dict[str, Prediction] = {}
    for place, value in read_records(path, "predictions", problems):
        prediction = _prediction(place, value, problems)
        if prediction is None:
            continue
        first = found.setdefault(prediction.instance_id, prediction)
        if first is not prediction:
            kind = "the same" if first.patch == prediction.patch else "another"
            problems.append(
                f"{place}: {prediction.instance_id} is a duplicate of {first.place} with {kind} patch; it is ignored."
            )
    if not found:
        raise ConfigurationError(
            f"predictions={str(path)!r}: the file has no valid prediction. {' '.join(problems[:3])}".rstrip(),
            hint='Write one per line: {"instance_id": ..., "model_patch": ..., "model_name_or_path": ...}.',
        )
    models = {prediction.model for prediction in found.values()}
    if len(models) > 1:
        raise ConfigurationError(
            f"predictions={str(path)!r}: the file has predictions of {len(models)} models: "
            f"{', '.join(sorted(models)[:5])}.",
            hint="A report covers one model: use one file per model.",
        )
    return list(found.values()), problems


def read_records(path: Path, what: str, problems: list[str]) -> Iterable[tuple[str, Any]]:
    """Return the values of a file of JSON Lines or JSON, each with its file and line.

    Args:
        path: JSON if the name ends in `.json`, otherwise JSON Lines.
        what: Name of the parameter, for messages.
        problems: A list to which a message is added for each line that is not JSON.

    Raises:
        ConfigurationError: The file cannot be read.
    """
    try:
        content = path.expanduser().read_bytes().removeprefix(codecs.BOM_UTF8)
        if path.suffix == ".json":
            whole = json.loads(content)
            values = list(whole.values()) if isinstance(whole, dict) else whole
            if not isinstance(values, list):
                raise ValueError(f"expected a list or an object, got {str(whole)[:40]!r}")
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
        problems.append(f"{place}: the model_patch of {identifier} is not valid Unicode: {error}.")
        return None
    return Prediction(identifier, patch or "", str(model or "None"), place)
