"""The blocks among the parameters of a flow run, read in a process that knows only the run."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from prefect import Flow
from prefect.blocks.core import Block
from prefect.client.schemas.objects import FlowRun

from ags_flows.blocks import AGSConfig, resolve_config
from ags_flows.errors import AGSFlowsError
from ags_flows.job import SandboxJob
from ags_flows.run.logs import Logger

B = TypeVar("B", bound=Block)


def given_config(flow: Flow[..., Any], flow_run: FlowRun, logger: Logger) -> AGSConfig | None:
    """Return the configuration that the parameters of a run name, directly or by a job; None if there is none.

    Parameters that came from code hold the configuration with masked keys, which count as empty.
    """
    config = given_block(AGSConfig, flow, flow_run, logger)
    job = given_block(SandboxJob, flow, flow_run, logger) if config is None else None
    return job.config if job is not None else config


def given_block(kind: type[B], flow: Flow[..., Any], flow_run: FlowRun, logger: Logger) -> B | None:
    """Return the first parameter of a run that is a block of this type.

    A parameter is one if the flow declares it so, or if its value has that form. A dict that only has the same name,
    such as a user's own `config={"region": "north"}`, is not one. A parameter that cannot be read is logged and
    ignored.
    """
    declared = _declared(kind, flow)
    for name, value in flow_run.parameters.items():
        try:
            block = _block(kind, value, name in declared)
        except (ValueError, AGSFlowsError) as error:
            logger.warning("The parameter %s cannot be read and is ignored: %s", name, error)
            continue
        if block is not None:
            return block
    return None


def _declared(kind: type[Block], flow: Flow[..., Any]) -> set[str]:
    """Return the names of the parameters that the flow declares as blocks of this type."""
    schema, slug = flow.parameters, kind.get_block_type_slug()
    titles = [title for title, one in schema.definitions.items() if one.get("block_type_slug") == slug]
    references = [json.dumps(f"#/definitions/{title}") for title in titles]
    return {
        name
        for name, declaration in schema.properties.items()
        if any(reference in json.dumps(declaration, default=str) for reference in references)
    }


def _block(kind: type[B], value: Any, declared: bool) -> B | None:
    """Return a parameter as a block: whole, by its fields, by a reference to its document, or by its name."""
    if isinstance(value, kind):
        return value
    if isinstance(value, str) and value and declared and kind is AGSConfig:
        resolved: Any = resolve_config(value)
        return resolved if isinstance(resolved, kind) else None
    if not isinstance(value, dict):
        return None
    if (reference := value.get("$ref")) is not None:
        identifier = reference.get("block_document_id") if isinstance(reference, dict) else reference
        loaded = Block.load_from_ref({"block_document_id": identifier}) if identifier else None
        return loaded if isinstance(loaded, kind) else None
    if declared or value.get("block_type_slug") == kind.get_block_type_slug():
        return kind(**value)
    return None
