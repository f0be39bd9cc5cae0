"""Blocks whose wrong fields are told in one sentence each, however they came in: by code, or by a saved document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from typing_extensions import Self

from ags_flows.errors import ConfigurationError
from ags_flows.models import explain
from ags_flows.models.constant import Constant

if TYPE_CHECKING:
    from pydantic import BaseModel as _Mixin
else:
    # Prefect would take another subclass of its `Block` for a block type.
    _Mixin = object


class Explained(Constant, _Mixin):
    """Mixin of blocks; it stands before `Block` among the bases.

    Raises:
        ConfigurationError: A field is wrong.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Check the fields."""
        try:
            super().__init__(*args, **kwargs)
        except ValidationError as error:
            raise ConfigurationError(explain(type(self).__name__, error)) from None

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Check the fields of a document."""
        try:
            checked: Self = super().model_validate(obj, **options)
        except ValidationError as error:
            raise ConfigurationError(explain(cls.__name__, error)) from None
        return checked
