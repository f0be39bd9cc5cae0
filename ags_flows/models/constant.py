"""Models that Prefect's `task.map` passes to each task run as they are."""

from __future__ import annotations

from collections.abc import KeysView
from typing import Any

from pydantic import BaseModel


class Constant:
    """Mixin of pydantic models that are not iterable; it stands before the model among the bases.

    `task.map` maps over each argument that `iter` accepts, which accepts pydantic's models. `dict(model)` still works.
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
