"""Models that Prefect's `task.map` passes unchanged to each task run."""

from __future__ import annotations

from collections.abc import KeysView
from typing import Any

from pydantic import BaseModel


class Constant:
    """Mixin that makes a pydantic model not iterable. List it before the model in the bases.

    `task.map` maps over each iterable argument, and pydantic models are iterable. `dict(model)` still works.
    """

    __iter__: Any = None

    def keys(self) -> KeysView[str]:
        """Return the names of the fields."""
        return _fields(self).keys()

    def __getitem__(self, name: str) -> Any:
        """Return the value of a field."""
        return _fields(self)[name]


def _fields(model: Any) -> dict[str, Any]:
    return dict(BaseModel.__iter__(model))
