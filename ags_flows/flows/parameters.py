"""Types of flow parameters that make a good form in the Prefect UI.

The UI shows `str | None` as a choice of types to be made before anything can be written; a plain `str` is a field to
write into. So texts are plain, empty by default, and None counts as empty too. A number for which no value means
"none" may be None.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from ags_flows.models import ToolSpec

Text: TypeAlias = Annotated[str, BeforeValidator(lambda given: "" if given is None else given)]
Pairs: TypeAlias = Annotated[dict[str, str], BeforeValidator(lambda given: {} if given is None else given)]
Texts: TypeAlias = Annotated[list[str], BeforeValidator(lambda given: [] if given is None else given)]
User: TypeAlias = Annotated[Literal["user", "root"], BeforeValidator(lambda given: given or "user")]
Seconds: TypeAlias = Annotated[float, Field(ge=0), BeforeValidator(lambda given: given or 0.0)]
"""0, or None, is without a limit."""
ToolChoice: TypeAlias = Annotated[
    str | ToolSpec, Field(union_mode="left_to_right"), BeforeValidator(lambda given: "" if given is None else given)
]
