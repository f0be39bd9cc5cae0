"""Patches evaluated in real sandboxes, and their verdicts beside those of the official package run directly."""

import json
import shutil
import subprocess

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey

from ags_flows.errors import ConfigurationError
from ags_flows.flows import swebench_evaluate
from ags_flows.models import ToolSpec
from ags_flows.swebench.official import grade, script_of

pytestmark = pytest.mark.usefixtures("prefect_server")

TOOL = ToolSpec(name="swebench-v1", type="swebench", image="swebench/base:1", image_registry_type="system")


def predicted(instance_id, patch, model="team/model"):
    return {"instance_id": instance_id, "model_patch": patch, "model_name_or_path": model}


def changed(patch, before, after):
    assert before in patch
    return patch.replace(before, after)


@pytest.fixture
def evaluate(account, tmp_path):
    def evaluated(predictions, dataset, **options):
        defaults = {"tool": TOOL, "results": str(tmp_path / "results"), "timeout": 60, "sandboxes": 4}
        return swebench_evaluate(predictions, dataset, config=account, **{**defaults, **options})

    return evaluated


def directly(instance, place, patch, directory):
    """Return the official report of a run on this machine, without any sandbox."""
    shutil.copytree(place, directory)
    subprocess.run(["git", "apply", "-"], input=patch, text=True, cwd=directory, check=True)
    script = script_of(instance).replace("/testbed", str(directory)).replace("git config --global", "true")
    done = subprocess.run(["bash", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return grade(instance, predicted(instance["instance_id"], patch), done.stdout)


def test_each_kind_of_patch_gets_the_verdict_that_the_official_grading_gives(evaluate, write, projects, tmp_path):
    _, instances, places = projects
    calc, words = instances["demo__calc-1"], instances["demo__words-1"]
    patches = {"right": calc["patch"], "wrong": changed(calc["patch"], "a + b", "a * b + 1")}
    hangs = changed(calc["patch"], "    return a + b", "    while True: pass")
    cases = {
        "right": patches["right"],
        "wrong": patches["wrong"],
        "hangs": hangs,
        "bad": changed(calc["patch"], "return a - b", "return nothing like it").replace("def add", "def other"),
        "empty": "",
    }
    # The same project five times, so that each patch has an instance of its own.
    dataset = [{**calc, "instance_id": f"demo__calc-{name}"} for name in cases] + [words]
    predictions = [predicted(f"demo__calc-{name}", patch) for name, patch in cases.items()]
    predictions.append(predicted("demo__words-1", words["patch"]))
    report = evaluate(write("p.jsonl", predictions), write("d.jsonl", dataset), timeout=5)
    outcomes = {verdict.instance_id.rpartition("-")[2]: verdict for verdict in report.verdicts}
    assert {name: verdict.outcome for name, verdict in outcomes.items()} == {
        "right": "resolved",
        "wrong": "unresolved",
        "hangs": "timeout",
        "bad": "patch failed",
        "empty": "empty patch",
        "1": "resolved",
    }
    for name, patch in patches.items():
        instance = next(one for one in dataset if one["instance_id"] == f"demo__calc-{name}")
        official = directly(instance, places["demo__calc-1"], patch, tmp_path / name)
        assert outcomes[name].report == official and official["patch_successfully_applied"]
    written = json.loads((tmp_path / "results" / "team__model.json").read_text())
    assert written["schema_version"] == 2
    assert written["resolved_ids"] == ["demo__calc-right", "demo__words-1"]
    assert written["unresolved_ids"] == ["demo__calc-wrong"]
    assert written["error_ids"] == ["demo__calc-bad", "demo__calc-hangs"]
    assert written["empty_patch_ids"] == ["demo__calc-empty"]
    logs = tmp_path / "results" / "logs" / "team__model"
    assert "Timeout error: 5 seconds exceeded" in (logs / "demo__calc-hangs" / "test_output.txt").read_text()
    assert json.loads((logs / "demo__calc-right" / "report.json").read_text())["demo__calc-right"]["resolved"]
    with get_client(sync_client=True) as client:
        key = ArtifactCollectionFilterKey(any_=["swebench"])
        table = client.read_latest_artifacts(artifact_filter=ArtifactCollectionFilter(key=key))[0]
    assert "2 resolved" in table.description and "demo__calc-wrong" in table.data


def test_what_is_graded_is_not_evaluated_again_for_the_same_patch(evaluate, write, projects):
    _, instances, _ = projects
    dataset = write("d.jsonl", instances.values())
    right = {name: predicted(name, one["patch"]) for name, one in instances.items()}
    first = evaluate(write("p.jsonl", right.values()), dataset)
    assert first.resumed == 0 and len(first.ids("resolved")) == 2
    again = evaluate(write("p.jsonl", right.values()), dataset)
    assert again.resumed == 2 and again.verdicts == first.verdicts
    wrong = changed(instances["demo__calc-1"]["patch"], "a + b", "a")
    other = evaluate(
        write("p.jsonl", [right["demo__words-1"], predicted("demo__calc-1", wrong)]), dataset, tool_per_image=True
    )
    assert other.resumed == 1
    assert (other.ids("resolved"), other.ids("unresolved")) == (["demo__words-1"], ["demo__calc-1"])


def test_a_missing_image_is_an_error_of_its_instance_and_the_rest_goes_on(evaluate, write, projects):
    _, instances, _ = projects
    calc = instances["demo__calc-1"]
    lost = {**calc, "instance_id": "demo__lost-1", "image": "registry.invalid/none:1"}
    predictions = [predicted(name, calc["patch"]) for name in ("demo__lost-1", "demo__calc-1")]
    report = evaluate(write("p.jsonl", predictions), write("d.jsonl", [lost, calc]), retries=0)
    assert report.ids("resolved") == ["demo__calc-1"]
    (error,) = [verdict for verdict in report.verdicts if verdict.outcome == "error"]
    assert error.instance_id == "demo__lost-1" and "registry.invalid" in error.reason


def test_what_is_wrong_with_the_files_is_named_with_line_and_instance_and_the_rest_goes_on(evaluate, write, projects):
    _, instances, _ = projects
    calc = instances["demo__calc-1"]
    older = {name: calc[name] for name in ("instance_id", "repo", "patch")} | {"instance_id": "demo__older-1"}
    predictions = [
        predicted("demo__calc-1", calc["patch"]),
        "{broken\n",
        predicted("demo__calc-1", "another"),
        predicted("demo__unknown-1", "x"),
        {"instance_id": "demo__words-1"},
        '["no", "object"]\n',
    ]
    report = evaluate(write("p.jsonl", predictions), write("d.jsonl", [older, "nonsense\n", calc]))
    assert report.ids("resolved") == ["demo__calc-1"]
    for told in (
        "d.jsonl, line 1: demo__older-1 lacks version, image",
        "d.jsonl, line 2 is not JSON",
        "p.jsonl, line 2 is not JSON",
        "p.jsonl, line 3: demo__calc-1 is there already (p.jsonl, line 1), with another patch",
        "p.jsonl, line 4: demo__unknown-1 is not in the data set",
        "p.jsonl, line 5: demo__words-1 has no model_patch",
        "p.jsonl, line 6 has no instance_id",
    ):
        assert any(told.partition(" lacks")[0] in problem for problem in report.problems), told
    for wrong in ("no-such.jsonl", write("empty.jsonl", []), write("all-bad.jsonl", [older])):
        with pytest.raises(ConfigurationError):
            evaluate(write("p.jsonl", predictions[:1]), wrong)
        with pytest.raises(ConfigurationError):
            evaluate(wrong, write("d.jsonl", [calc]))
