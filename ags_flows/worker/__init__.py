"""Work pools of type `ags`: each flow run in a separate sandbox. Prefect finds the worker by its entry point."""

from ags_flows.worker.configuration import AGSWorkerJobConfiguration, AGSWorkerVariables
from ags_flows.worker.worker import AGSWorker, AGSWorkerResult

__all__ = ["AGSWorker", "AGSWorkerJobConfiguration", "AGSWorkerResult", "AGSWorkerVariables"]
