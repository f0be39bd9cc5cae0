"""The configurations that a worker's pool, its deployments and its flow runs make together."""

from __future__ import annotations

import logging
from typing import Any, cast

from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.workers.base import BaseWorker

from ags_flows.blocks import AGSConfig
from ags_flows.worker.configuration import AGSWorkerJobConfiguration

logger = logging.getLogger(__name__)


async def configuration_of(run: FlowRun, worker: BaseWorker[Any, Any, Any]) -> AGSWorkerJobConfiguration:
    """Return the configuration of a flow run, as its deployment and the work pool are now.

    Raises:
        ValueError: The template is wrong.
        ObjectNotFound: The deployment, or a block that is named, does not exist.
    """
    if not hasattr(AGSWorkerJobConfiguration, "resolve_for_flow_run"):
        # Prefect 3.6
        older: AGSWorkerJobConfiguration = await cast("Any", worker)._get_configuration(run)
        return older
    return await AGSWorkerJobConfiguration.resolve_for_flow_run(
        run, client=worker.client, work_pool=worker.work_pool, worker_name=worker.name, worker_id=worker.backend_id
    )


async def configuration_that_was(run: FlowRun, worker: BaseWorker[Any, Any, Any]) -> AGSWorkerJobConfiguration:
    """Return the configuration of a flow run that has begun; where it was changed and is wrong now, the default."""
    try:
        return await configuration_of(run, worker)
    except (ValueError, ObjectNotFound) as error:
        logger.warning("Flow run %s: its template is wrong now, and not used: %s", run.id, error)
        default = AGSWorkerJobConfiguration(config=await config_of_pool(worker))
        default.prepare_for_flow_run(run)
        return default


async def config_of_pool(worker: BaseWorker[Any, Any, Any]) -> AGSConfig:
    """Return the configuration that the pool's template has by default: that of a block, or written into it."""
    template = worker.work_pool.base_job_template
    # Nothing else of the template has to be right.
    alone = {**template, "job_configuration": {"config": template["job_configuration"].get("config")}}
    found: AGSWorkerJobConfiguration = await AGSWorkerJobConfiguration.from_template_and_values(
        alone, {}, client=worker.client
    )
    return found.config or AGSConfig()
