"""A run from the form of the Prefect UI, as a person does it, in headless Chromium; screenshots are kept.

They lie in the directory that the variable SCREENSHOTS names, by default in pytest's temporary directory.
"""

import os
import shutil
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


@pytest.fixture
def page():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make deployed does it")
    if not CHROMIUM:
        pytest.skip("no Chromium here: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1300, "height": 1500})
        page.set_default_timeout(30_000)
        yield page
        browser.close()


@pytest.fixture
def shoot(page, tmp_path):
    directory = Path(os.environ.get("SCREENSHOTS", tmp_path))
    directory.mkdir(parents=True, exist_ok=True)

    def shoot(name):
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(1000)
        page.screenshot(path=directory / f"{name}.png")
        print(f"screenshot: {directory / name}.png")

    return shoot


def test_a_person_fills_in_the_form_runs_and_looks_at_the_page_of_the_run(worked, page, shoot):
    stage = worked
    deployment = stage.deployment("provision-and-run/run-command")
    before = {run.id for run in stage.runs("provision-and-run/run-command")}
    page.goto(f"{stage.url}/deployments/deployment/{deployment.id}/run")
    shoot("form-empty")
    command = page.locator("textarea").first
    assert command.input_value() == "python3 --version"
    command.fill("for i in 1 2 3; do echo line $i; sleep 2; done; python3 --version")
    shoot("form-filled")
    page.get_by_role("button", name="Submit").click()
    (run,) = stage.wait_until(
        lambda: [one for one in stage.runs("provision-and-run/run-command") if one.id not in before], 30
    )
    page.goto(f"{stage.url}/runs/flow-run/{run.id}")
    stage.wait_until(lambda: "line 2" in stage.log(run), 90)
    shoot("run-under-way")
    stage.completed(run)
    page.reload()
    shoot("run-completed")
    page.get_by_text("Artifacts", exact=True).first.click()
    shoot("run-artifacts")
    artifact = next(one for one in stage.api.read_artifacts() if one.flow_run_id == run.id and one.key == "sandbox-run")
    page.goto(f"{stage.url}/artifacts/artifact/{artifact.id}")
    page.get_by_text("Exit code 0").first.wait_for()
    assert page.get_by_text("line 3").first.is_visible()
    shoot("artifact")
