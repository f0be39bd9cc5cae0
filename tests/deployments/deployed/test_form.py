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


@pytest.fixture
def choose(page):
    """Return a function that chooses a saved block in the field of a form that has a list of blocks."""

    def choose(name):
        # A click opens the list and closes it again; the keyboard does what a person's click does.
        page.locator(".block-document-input button.p-select-button__control").focus()
        page.keyboard.press("Space")
        page.locator(".p-select-option", has_text=name).first.click()

    return choose


@pytest.fixture
def submit(page):
    """Return a function that submits the form, and returns the flow run that the server has created for it."""

    def submit(stage):
        with page.expect_response(lambda response: response.url.endswith("/create_flow_run"), timeout=120_000) as got:
            page.get_by_role("button", name="Submit").click()
        assert got.value.status == 201, got.value.text()
        return stage.api.read_flow_run(got.value.json()["id"])

    return submit


def test_a_saved_configuration_is_chosen_in_the_form_and_used(unconfigured, page, shoot, choose, submit):
    stage = unconfigured
    name = "provision-and-run/run-command"
    page.goto(f"{stage.url}/deployments/deployment/{stage.deployment(name).id}/run")
    page.locator("textarea").first.wait_for()
    page.get_by_text("AGSConfig", exact=True).click()
    choose("emulator")
    shoot("config-chosen")
    run = submit(stage)
    assert set(run.parameters["config"]) == {"$ref"}
    stage.completed(run)
    assert "Exit code 0" in stage.artifacts(run)["sandbox-run"]


def test_a_saved_job_is_chosen_in_the_form(unconfigured, page, shoot, choose, submit):
    stage = unconfigured
    page.goto(f"{stage.url}/deployments/deployment/{stage.deployment('run-job/saved-job').id}/run")
    choose("of-the-form")
    shoot("job-chosen")
    run = stage.completed(submit(stage))
    assert "Exit code 0" in stage.artifacts(run)["sandbox-run"]
    assert stage.api.read_flow_run(run.id).name == "of-the-form on base"


def test_the_name_of_a_configuration_is_written_into_the_form(unconfigured, page, submit):
    stage = unconfigured
    name = "provision-and-run/run-command"
    page.goto(f"{stage.url}/deployments/deployment/{stage.deployment(name).id}/run")
    field = page.locator(".schema-form-property", has=page.get_by_text("config (Optional)", exact=True))
    field.locator("textarea").fill("emulator")
    run = submit(stage)
    assert run.parameters["config"] == "emulator"
    stage.completed(run)


def test_a_person_fills_in_the_form_runs_and_looks_at_the_page_of_the_run(worked, page, shoot, submit):
    stage = worked
    deployment = stage.deployment("provision-and-run/run-command")
    page.goto(f"{stage.url}/deployments/deployment/{deployment.id}/run")
    shoot("form-empty")
    command = page.locator("textarea").first
    assert command.input_value() == "python3 --version"
    command.fill("for i in 1 2 3; do echo line $i; sleep 2; done; python3 --version")
    shoot("form-filled")
    run = submit(stage)
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
