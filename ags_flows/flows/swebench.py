"""The flow that evaluates patches on SWE-bench."""

import json
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.context import FlowRunContext
from pydantic import Field

from ags_flows.batch.place import storage_for
from ags_flows.batch.pool import Order
from ags_flows.batch.storage import RESULTS, Storage
from ags_flows.blocks import AGSConfig, ConfigChoice, resolve_config
from ags_flows.errors import ConfigurationError, SyncFailedError, ToolFailedError
from ags_flows.flows.hooks import stop_sandboxes, stop_sandboxes_if_asked
from ags_flows.flows.names import name_of_evaluation
from ags_flows.flows.parameters import Text, ToolChoice
from ags_flows.flows.run_items import run_items
from ags_flows.flows.sync_tools import sync_tools
from ags_flows.lifecycle.sync_plan import tool_name_of
from ags_flows.models import CustomConfiguration, EvaluationReport, ToolSpec, Verdict
from ags_flows.models.fields import ImageRegistryType
from ags_flows.ownership import fingerprint
from ags_flows.run.artifacts import show
from ags_flows.run.holder import owner
from ags_flows.run.logs import run_logger
from ags_flows.run.task_options import as_step
from ags_flows.session import OnCrash, SandboxSession
from ags_flows.swebench.dataset import read_dataset
from ags_flows.swebench.evaluation import Evaluation, evaluate, known_verdict
from ags_flows.swebench.predictions import read_predictions
from ags_flows.swebench.report import official_report, rows_of, summary_of
from ags_flows.tasks import ensure_tool, wait_tool_active

ARTIFACT = "swebench"
GROUP, PREFIX = "swebench", "swe-"


@flow(
    name="swebench-evaluate",
    flow_run_name=name_of_evaluation,
    description="Evaluate patches on SWE-bench: each in a sandbox of its instance's image, graded by the official "
    "package. Goes on after a crash with what is not graded.",
    on_cancellation=[stop_sandboxes],
    on_crashed=[stop_sandboxes_if_asked],
)
def swebench_evaluate(
    predictions: str,
    dataset: str,
    split: str = "test",
    tool: ToolChoice = "swebench-v1",
    image_registry_type: ImageRegistryType = "system",
    tool_per_image: bool = False,
    sandboxes: int | None = None,
    timeout: Annotated[float, Field(gt=0)] = 1800.0,
    retries: Annotated[int, Field(ge=0)] = 2,
    results: Text = "",
    concurrency_limit: Text = "",
    rate_limit: Text = "",
    lease: Text = "",
    on_crash: OnCrash = "lease",
    config: ConfigChoice = "",
) -> EvaluationReport:
    """Evaluate the patches of a model on SWE-bench.

    Each patch is applied in a fresh sandbox of its instance's image, as the official harness applies it; then the
    official evaluation script runs, and the official package grades its log. What the sandbox or the cloud fails at
    is tried again, and is never counted as unresolved.

    Args:
        predictions: A file of JSON Lines (or JSON) with `instance_id`, `model_patch` and `model_name_or_path`.
        dataset: A file (.jsonl, .json, .parquet), or a name that the official package loads from the network.
        split: Of a data set that has several.
        tool: A tool of type `swebench`, whose instances are started with the image of each instance; created where
            a specification is given, and kept.
        image_registry_type: Where the images are: `system` for those that AGS has.
        tool_per_image: Keep a tool for each image instead, with the flow `sync_tools`: instances start sooner.
        sandboxes: How many at the same time; empty: what the account's quota leaves free, at most 100.
        timeout: Seconds for each evaluation script.
        retries: How often an instance is tried again after a failure of the sandbox or the cloud.
        results: Where logs, verdicts and the report are kept: a path, or a URL such as s3://bucket/path. A later run
            with the same place skips what is graded there for the same patch. Empty: the result storage of this run.
        concurrency_limit: A global concurrency limit: each sandbox takes one slot, in all flow runs together.
        rate_limit: A global rate limit for starting sandboxes, over all flow runs.
        lease: How long sandboxes outlive this process if it dies, `30s` to `24h`.
        on_crash: What happens to the sandboxes when this process is killed: left to a retry and to their `lease`, or
            `stop`.
        config: An AGS Config block, or its name. Empty: the environment of the process that executes the run.

    Returns:
        A verdict for each prediction, and what is wrong with the files.

    Raises:
        ConfigurationError: A file cannot be read, or nothing in it can be evaluated; nothing was started.

    Example:
        ```python
        report = swebench_evaluate("predictions.jsonl", "dataset.jsonl", results="evaluations/nightly")
        print(report.ids("resolved"))
        ```
    """
    if not 0 < timeout < float("inf"):
        raise ConfigurationError(f"timeout must be > 0 seconds, got {timeout!r}.")
    config = resolve_config(config)
    started = time.monotonic()
    # First what is here: the data set may come from the network.
    predicted, problems = read_predictions(Path(predictions))
    instances, more = read_dataset(dataset, split, image_registry_type)
    problems += more
    storage = storage_for(results or None)
    evaluations: dict[str, Evaluation] = {}
    verdicts: dict[str, Verdict] = {}
    failures: dict[str, str] = {}
    for prediction in predicted:
        name = prediction.instance_id
        if name not in instances:
            problems.append(f"{prediction.place}: {name} is not in the data set.")
        elif not prediction.patch.strip():
            verdicts[name] = Verdict(instance_id=name, outcome="empty patch", reason="The model gave no patch.")
        else:
            evaluation = Evaluation(prediction, instances[name])
            evaluations[evaluation.key] = evaluation
    for problem in problems:
        run_logger().warning("%s", problem)
    known = _known(evaluations, storage, timeout)
    if known:
        run_logger().info("%d of %d were graded before, for the same patch", len(known), len(evaluations))
    if len(known) < len(evaluations):
        undone = {key: one for key, one in evaluations.items() if key not in known}
        # Of this flow run: its retries go on with what was begun, a later run begins with what has no verdict.
        run = owner().flow_run_id or str(uuid.uuid4())
        batch = storage.under(f"batches/{fingerprint([run, *sorted(evaluations)])}/")
        items = _items(batch, evaluations, undone)
        order = _order(tool, image_registry_type, tool_per_image, undone, config)

        def work(sandbox: SandboxSession, item: dict[str, Any]) -> dict[str, Any]:
            return evaluate(sandbox, evaluations[item["key"]], storage, timeout).model_dump(mode="json")

        run_items(
            items,
            work,
            order=order,
            sandboxes=sandboxes,
            items_per_sandbox=1,
            concurrency_limit=concurrency_limit or None,
            rate_limit=rate_limit or None,
            results=batch,
            retries=retries,
            fail_above=1.0,
            lease=lease or None,
            on_crash=on_crash,
            config=config,
        )
        failures = _failures(batch)
    done = known | _known({key: one for key, one in evaluations.items() if key not in known}, storage, timeout)
    for key, one in evaluations.items():
        name = one.prediction.instance_id
        reason = f"{one.instance['image']}: {failures.get(key, 'it was not begun.')}"
        verdicts[name] = done.get(key) or Verdict(instance_id=name, outcome="error", reason=reason)
    model = predicted[0].model
    file = f"{model.replace('/', '__')}.json"
    report = EvaluationReport(
        model=model,
        verdicts=tuple(verdicts[one.instance_id] for one in predicted if one.instance_id in verdicts),
        problems=tuple(problems),
        report=storage.where(file),
        resumed=len(known),
        seconds=round(time.monotonic() - started, 3),
    )
    official = official_report(report, instances, [one.instance_id for one in predicted])
    storage.write(file, json.dumps(official, indent=4).encode())
    if FlowRunContext.get() is not None:
        show(lambda: create_table_artifact(key=ARTIFACT, table=rows_of(report), description=summary_of(report)))
    run_logger().info("%s", summary_of(report).splitlines()[0].replace("*", ""))
    return report


def _order(
    tool: str | ToolSpec,
    registry: ImageRegistryType,
    tool_per_image: bool,
    evaluations: dict[str, Evaluation],
    config: AGSConfig,
) -> Callable[[Any], Order]:
    """Return which sandbox an item needs."""
    if tool_per_image:
        lost = _sync(tool, registry, {str(one.instance["image"]) for one in evaluations.values()}, config)

        def own(item: dict[str, str]) -> Order:
            if item["image"] in lost:
                raise ToolFailedError(lost[item["image"]])
            return Order(tool_name_of(item["image"], PREFIX))

        return own
    if not tool:
        raise ConfigurationError("tool: it is empty.", hint="Give a tool of type swebench, such as swebench-v1.")
    # A missing tool is reported before anything is started, and not once for each instance.
    ready = as_step(ensure_tool)(tool, config=config) if isinstance(tool, ToolSpec) else tool
    name = as_step(wait_tool_active)(ready, config=config).id
    return lambda item: Order(name, CustomConfiguration(image=item["image"], image_registry_type=registry))


def _sync(tool: str | ToolSpec, registry: ImageRegistryType, images: set[str], config: AGSConfig) -> dict[str, str]:
    """Keep a tool for each image; return why some have none."""
    template = tool if isinstance(tool, ToolSpec) else ToolSpec(name="template", image_registry_type=registry)
    # Outside of flow runs, Prefect would start a server for it.
    sync = sync_tools if FlowRunContext.get() is not None else sync_tools.fn
    try:
        sync(sorted(images), template=template, group=GROUP, prefix=PREFIX, config=config)
    except SyncFailedError as error:
        return {one.image: one.problem for one in error.report.problems} if error.report else {}
    return {}


def _known(evaluations: dict[str, Evaluation], storage: Storage, timeout: float) -> dict[str, Verdict]:
    """Return the verdicts that there are."""
    found = {key: known_verdict(one, storage, timeout) for key, one in evaluations.items()}
    return {key: verdict for key, verdict in found.items() if verdict is not None}


def _items(batch: Storage, evaluations: dict[str, Evaluation], undone: Iterable[str]) -> list[dict[str, str]]:
    """Return the items of the batch. They are stored, and are the same in every attempt."""
    try:
        keys = json.loads(batch.read("items.json"))
    except ValueError:
        keys = list(undone)
        try:
            batch.write("items.json", json.dumps(keys).encode())
        except OSError as error:
            where = batch.where("items.json")
            raise ConfigurationError(f"results: {where} cannot be written: {error}. Nothing was started.") from error
    return [
        {
            "key": key,
            "instance": evaluations[key].prediction.instance_id,
            "image": str(evaluations[key].instance["image"]),
        }
        for key in keys
    ]


def _failures(batch: Storage) -> dict[str, str]:
    """Return why items failed, by key."""
    results = [json.loads(line) for line in batch.read(RESULTS).splitlines()]
    return {result["key"]: result["error"] for result in results if result["status"] == "failed"}
