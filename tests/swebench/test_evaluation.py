"""Patches are evaluated in real sandboxes; the official package, run directly, must give the same verdicts."""

import json
import re
import shutil
import subprocess

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey
from swebench.harness import reporting

from ags_flows.errors import ConfigurationError
from ags_flows.flows import swebench_evaluate
from ags_flows.swebench.official import grade, script_of
from ags_flows.swebench.predictions import Prediction

pytestmark = pytest.mark.usefixtures("prefect_server")


def directly(instance, place, patch, directory):
    """Return the official report of a run on this machine, without a sandbox."""
    shutil.copytree(place, directory)
    subprocess.run(["git", "apply", "-"], input=patch, text=True, cwd=directory, check=True)
    script = script_of(instance).replace("/testbed", str(directory)).replace("git config --global", "true")
    done = subprocess.run(["bash", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return grade(
        instance,
        Prediction(instance["instance_id"], patch, "model", "").official(),
        done.stdout.decode(errors="replace"),
    )


def test_each_kind_of_patch_gets_the_verdict_of_the_official_grading(
    evaluate_all, write, predicted, changed, projects, tmp_path, monkeypatch
):
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
        "bytes": patches["right"],
        "cut": patches["right"],
        "names": patches["right"],
        "missing": patches["right"],
    }
    # The same project several times, so that each patch has a separate instance.
    dataset = [{**calc, "instance_id": f"demo__calc-{name}"} for name in cases] + [words]
    by_name = {one["instance_id"].rpartition("-")[2]: one for one in dataset}
    run = "python3 -m unittest -v test_calc"
    # Bytes that are not UTF-8 between the results; a truncated log; a test whose name looks like a token.
    for name, other in {
        "bytes": f"{run}; printf '\\377\\000\\r\\n\\xe2\\x82'",
        "cut": f"{run}; exit 1",
        "names": f"{run} 2>&1 | sed s/test_add/sit_0123456789abcdef/g",
        "missing": "echo 'ModuleNotFoundError: no calc'",
    }.items():
        by_name[name]["eval_script"] = changed(calc["eval_script"], run, other)
    by_name["names"]["FAIL_TO_PASS"] = calc["FAIL_TO_PASS"].replace("test_add", "sit_0123456789abcdef")
    predictions = [predicted(f"demo__calc-{name}", patch) for name, patch in cases.items()]
    predictions.append(predicted("demo__words-1", words["patch"]))
    report = evaluate_all(write("p.jsonl", predictions), write("d.jsonl", dataset), timeout=5)
    outcomes = {verdict.instance_id.rpartition("-")[2]: verdict for verdict in report.verdicts}
    assert {name: verdict.outcome for name, verdict in outcomes.items()} == {
        "right": "resolved",
        "wrong": "unresolved",
        "hangs": "timeout",
        "bad": "patch failed",
        "empty": "empty patch",
        "bytes": "resolved",
        "cut": "unresolved",
        "names": "resolved",
        "missing": "unresolved",
        "1": "resolved",
    }
    for name in ("right", "wrong", "bytes", "cut", "names", "missing"):
        official = directly(by_name[name], places["demo__calc-1"], cases[name], tmp_path / name)
        assert outcomes[name].report == official, name
        assert official["patch_successfully_applied"] == (name not in ("cut", "missing"))
    # The official package creates the same report from the same logs.
    written = json.loads((tmp_path / "results" / "team__model.json").read_text())
    monkeypatch.setattr(reporting, "RUN_EVALUATION_LOG_DIR", tmp_path / "results" / "logs")
    sent = {one["instance_id"]: one for one in predictions}
    assert written == json.loads(reporting.make_run_report(sent, dataset, ".", None, str(tmp_path)).read_text())
    assert written["failure_reasons"]["demo__calc-missing"] == "missing_module"
    assert written["error_ids"] == ["demo__calc-bad", "demo__calc-hangs"]
    logs = tmp_path / "results" / "logs" / "team__model"
    assert "Timeout error: 5 seconds exceeded" in (logs / "demo__calc-hangs" / "test_output.txt").read_text()
    assert json.loads((logs / "demo__calc-right" / "report.json").read_text())["demo__calc-right"]["resolved"]
    with get_client(sync_client=True) as client:
        key = ArtifactCollectionFilterKey(any_=["swebench"])
        table = client.read_latest_artifacts(artifact_filter=ArtifactCollectionFilter(key=key))[0]
    assert "4 resolved" in table.description and "demo__calc-wrong" in table.data


def test_a_stored_verdict_is_reused_for_the_same_patch_only(evaluate_all, write, predicted, changed, projects):
    _, instances, _ = projects
    dataset = write("d.jsonl", instances.values())
    right = {name: predicted(name, one["patch"]) for name, one in instances.items()}
    first = evaluate_all(write("p.jsonl", right.values()), dataset)
    assert first.resumed == 0 and len(first.ids("resolved")) == 2
    again = evaluate_all(write("p.jsonl", right.values()), dataset)
    assert again.resumed == 2 and again.verdicts == first.verdicts
    wrong = changed(instances["demo__calc-1"]["patch"], "a + b", "a")
    other = evaluate_all(
        write("p.jsonl", [right["demo__words-1"], predicted("demo__calc-1", wrong)]), dataset, tool_per_image=True
    )
    assert other.resumed == 1
    assert (other.ids("resolved"), other.ids("unresolved")) == (["demo__words-1"], ["demo__calc-1"])


@pytest.mark.parametrize("tool_per_image", [False, True])
def test_a_missing_image_is_an_error_of_its_instance_only(evaluate_all, write, predicted, projects, tool_per_image):
    _, instances, _ = projects
    calc = instances["demo__calc-1"]
    lost = {**calc, "instance_id": "demo__lost-1", "image": "registry.invalid/none:1"}
    predictions = [predicted(name, calc["patch"]) for name in ("demo__lost-1", "demo__calc-1")]
    files = write("p.jsonl", predictions), write("d.jsonl", [lost, calc])
    report = evaluate_all.fn(*files, retries=0, tool_per_image=tool_per_image)
    assert report.ids("resolved") == ["demo__calc-1"]
    (error,) = [verdict for verdict in report.verdicts if verdict.outcome == "error"]
    assert error.instance_id == "demo__lost-1" and "registry.invalid" in error.reason


def test_invalid_entries_are_reported_with_line_and_instance_and_the_others_are_evaluated(
    evaluate_all, write, predicted, projects
):
    _, instances, _ = projects
    calc = instances["demo__calc-1"]
    older = {name: calc[name] for name in ("instance_id", "repo", "patch")} | {"instance_id": "demo__older-1"}
    asset = json.dumps({"test_patch": [{"path": "a.png"}]})
    damaged = [
        {**calc, "instance_id": f"demo__{name}-1", **fields}
        for name, fields in {
            "tests": {"FAIL_TO_PASS": "[not json"},
            "kind": {"eval_type": "never"},
            "parser": {"log_parser": "parse_log_never"},
            "image": {"image": "not an image"},
            "asset": {"image_assets": asset},
        }.items()
    ]
    predictions = [
        predicted("demo__calc-1", calc["patch"]),
        "{broken\n",
        predicted("demo__calc-1", "another"),
        predicted("demo__unknown-1", "x"),
        {"instance_id": "demo__words-1"},
        '["no", "object"]\n',
        predicted("demo__half-1", "\ud800"),
        predicted("demo__older-1", calc["patch"]),
    ]
    entries = [older, "nonsense\n", calc, {**calc, "instance_id": "../../etc"}, {**calc, "instance_id": 7}, *damaged]
    files = write("p.jsonl", predictions), write("d.jsonl", entries)
    with open(files[0], "ab") as file:
        file.write(b'{"instance_id": "demo__latin-1", "model_patch": "caf\xe9"}\n')
    report = evaluate_all.fn(*files)
    assert report.ids("resolved") == ["demo__calc-1"] and len(report.verdicts) == 1
    problems = "\n".join(report.problems)
    for place in (
        "d.jsonl, line 1: demo__older-1 lacks image, version",
        "d.jsonl, line 2 is not JSON",
        "d.jsonl, line 4: '../../etc' is not a valid instance_id",
        "d.jsonl, line 5: the instance has no instance_id",
        "d.jsonl, line 6: demo__tests-1 is invalid",
        "d.jsonl, line 7: demo__kind-1 is invalid: 'never'",
        "d.jsonl, line 8: demo__parser-1: the installed swebench has no parser 'parse_log_never'",
        "d.jsonl, line 9: demo__image-1 is invalid: .*'not an image' is not an image",
        "d.jsonl, line 10: demo__asset-1 is invalid: image_assets: a.png has no url",
        "p.jsonl, line 2 is not JSON",
        "p.jsonl, line 3: demo__calc-1 is a duplicate of p.jsonl, line 1 with another patch",
        "p.jsonl, line 4: demo__unknown-1 is not in the data set",
        "p.jsonl, line 5: demo__words-1 has no model_patch",
        "p.jsonl, line 6 has no instance_id",
        "p.jsonl, line 7: the model_patch of demo__half-1 is not valid Unicode",
        "p.jsonl, line 8: demo__older-1 is not in the data set",
        "p.jsonl, line 9 is not JSON",
    ):
        assert re.search(f"^{place}", problems, re.MULTILINE), place
    for wrong in ("no-such.jsonl", write("empty.jsonl", []), write("all-bad.jsonl", [older]), write("n.json", [7])):
        with pytest.raises(ConfigurationError):
            evaluate_all.fn(write("p.jsonl", predictions[:1]), wrong)
        with pytest.raises(ConfigurationError):
            evaluate_all.fn(wrong, write("d.jsonl", [calc]))


def test_the_predictions_are_read_before_the_data_set(tmp_path):
    with pytest.raises(ConfigurationError, match="predictions="):
        swebench_evaluate.fn(str(tmp_path / "none.jsonl"), str(tmp_path / "none-either.jsonl"))
