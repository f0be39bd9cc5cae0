"""Blocks whose invalid fields are reported in one sentence, and that can be chosen in the form of a flow run."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.logging.loggers import get_logger
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from pydantic import GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from typing_extensions import Self

from ags_flows.errors import BlockError, ConfigurationError
from ags_flows.models import explain
from ags_flows.models.checks import shown_value
from ags_flows.models.constant import Constant
from ags_flows.models.value import check_fields

if TYPE_CHECKING:
    from prefect.blocks.core import Block as _Mixin
else:
    # Prefect would take another subclass of its `Block` for a block type.
    _Mixin = object


_OF_PREFECT = frozenset({"block_type_slug", "_block_document_id", "_block_document_name", "_is_anonymous"})
"""What Prefect adds to the fields of a block."""

_loading: ContextVar[bool] = ContextVar("loading", default=False)


class Explained(Constant, _Mixin):
    """Mixin of blocks; it stands before `Block` among the bases.

    Raises:
        ConfigurationError: A field is invalid.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not _loading.get():
            _refuse_unknown(type(self), kwargs)
        check_fields(type(self), kwargs)
        try:
            super().__init__(*args, **kwargs)
        except ValidationError as error:
            raise ConfigurationError(explain(type(self).__name__, error)) from None

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Validate the fields of a saved block. Fields that only older versions have are left out.

        Raises:
            BlockError: A field is invalid.
        """
        loading = _loading.set(True)
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            subject = f"The {cls.get_block_type_name()} block{_name_of(cls, obj)}"
            wrong = explain(cls.__name__, error).removeprefix(cls.__name__)
            refusal = BlockError(f"{subject}{wrong}", hint="Correct it under Blocks in the Prefect UI.")
            _log_at_start(refusal)
            raise refusal from None
        finally:
            _loading.reset(loading)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the JSON schema of the fields, which a reference to a saved block does not match.

        For a parameter that is a block, the Prefect server accepts a value that matches exactly one of the block's
        fields and `{"$ref": ...}`, which its UI sends for a saved block. A block without required fields would
        match both, and none could be chosen. So the first field counts as required, in forms and in parameters that
        are given as fields; it keeps its default in code. No other keyword will do: the form of the UI leaves out
        `not` and `additionalProperties` when it validates.
        """
        fields = handler(schema)
        definition = handler.resolve_ref_schema(fields)
        definition.setdefault("required", [next(iter(definition["properties"]))])
        return fields


def _refuse_unknown(kind: type[Explained], fields: Iterable[str]) -> None:
    known = kind.model_fields
    for name in fields:
        if name not in known and name not in _OF_PREFECT:
            close = get_close_matches(name[:100], known, 1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Its fields: {', '.join(sorted(known))}."
            raise ConfigurationError(f"{kind.__name__} has no field {shown_value(name)}.", hint=hint)


def _log_at_start(error: BlockError) -> None:
    """Log an error of a parameter in the run that this process executes, before that begins.

    Prefect logs it below a traceback of dozens of lines.
    """
    run = flow_run.id
    if run and FlowRunContext.get() is None:
        of_run = {"flow_run_id": run, "flow_run_name": "<unknown>", "flow_name": "<unknown>"}
        get_logger("flow_runs").error("%s", error, extra=of_run)


def _name_of(kind: type[Explained], data: Any) -> str:
    """Return the names of the saved blocks that have these fields, to be appended to a message.

    Prefect validates the fields without the name. It is looked up after a failure only, and only on a server that
    is there already.
    """
    if not PREFECT_API_URL.value():
        return ""
    try:
        with get_client(sync_client=True) as client:
            known = client.read_block_documents_by_type(kind.get_block_type_slug(), limit=200)
    except Exception:  # noqa: BLE001 - the message is complete enough without the name
        return ""
    names = [repr(one.name) for one in known if one.data == data and one.name]
    return f" {' or '.join(names)}" if names else ""
