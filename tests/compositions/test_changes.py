"""Changes of files and contexts: a retry finds those that were made, and does not make them again."""

import pytest

from ags_flows import sandbox_session, tasks
from ags_flows.transfer import local_state


def upload_one(sandbox, directory):
    (directory / "in").write_text("raw")
    sandbox.upload(directory / "in", "f")


def upload_many(sandbox, directory):
    (directory / "many").mkdir(exist_ok=True)
    if not (directory / "many" / "f").exists():
        (directory / "many" / "f").write_text("raw")
    sandbox.upload(directory / "many", ".")


def remove(sandbox, directory):
    tasks.remove_path.fn(sandbox.instance, "f", config=sandbox._config)


CHANGES = {
    "write": (lambda sandbox, _: sandbox.write("f", "raw"), "sed -i s/raw/clean/ f"),
    "upload a file": (upload_one, "sed -i s/raw/clean/ f"),
    "upload a directory": (upload_many, "sed -i s/raw/clean/ f"),
    "remove": (remove, "echo clean > f"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_retry_does_not_undo_what_commands_did_to_files(ags_config, attempt, killed_session, tmp_path, kind):
    change, command = CHANGES[kind]

    def work(sandbox):
        change(sandbox, tmp_path)
        sandbox.run(command, check=True)

    with attempt(1):
        first = killed_session(work=work)
    with attempt(2), sandbox_session("base", config=ags_config) as sandbox:
        assert sandbox.instance.id == first.instance.id
        work(sandbox)
        assert sandbox.read("f").strip() == b"clean"


def test_a_retry_repeats_a_change_that_was_not_recorded_and_sends_a_file_that_has_changed(
    ags_config, attempt, killed_session, tmp_path
):
    local = tmp_path / "in"
    local.write_text("first")
    with attempt(1):
        killed_session(work=lambda sandbox: sandbox.upload(local, "f"))
    local.write_text("second")
    with attempt(2), sandbox_session("base", config=ags_config) as sandbox:
        sandbox.upload(local, "f")
        sandbox.write("new", "written")
        assert (sandbox.read("f"), sandbox.read("new")) == (b"second", b"written")


def test_equal_changes_in_a_row_are_made_as_often_as_they_are_called(ags_config, attempt, killed_session):
    def work(sandbox):
        for number in range(2):
            sandbox.write("f", "raw")
            sandbox.run("cat f >> all; echo changed > f", step=str(number))

    with attempt(1):
        killed_session(work=work)
    with attempt(2), sandbox_session("base", config=ags_config) as sandbox:
        work(sandbox)
        assert (sandbox.read("all"), sandbox.read("f")) == (b"rawraw", b"changed\n")
        sandbox.write("f", "raw")
        assert sandbox.read("f") == b"raw"


def test_a_retry_does_not_restart_a_context_again(ags_config, attempt, killed_session):
    def work(sandbox):
        context = tasks.create_code_context.fn(sandbox.instance, config=ags_config)
        sandbox.run_code("x = 0", context=context)
        tasks.restart_code_context.fn(sandbox.instance, context, config=ags_config)
        sandbox.run_code("x = 1", context=context)
        return sandbox.run_code("x", context=context).text

    with attempt(1):
        killed_session("code-interpreter-v1", work=work)
    with attempt(2), sandbox_session("code-interpreter-v1", config=ags_config) as sandbox:
        assert work(sandbox) == "1"
        assert sandbox.run_code("x", context=None).error is not None


def test_a_change_with_another_name_is_made_again(ags_config, attempt, killed_session):
    def work(number):
        def change(sandbox):
            sandbox.write("f", "raw", step=f"try {number}")
            return sandbox.run("mv f used; cat used", durable=False).stdout

        return change

    with attempt(1):
        killed_session(work=work(1))
    with attempt(2), sandbox_session("base", config=ags_config) as sandbox:
        assert work(2)(sandbox) == "raw"


def test_a_directory_is_the_same_wherever_it_is_and_whenever_it_was_written(tmp_path):
    def made(name, content="x"):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "f").write_text(content)
        (directory / "left-out.pyc").write_text(name)
        return local_state(directory, exclude=["*.pyc"])

    assert made("a") == made("b") != made("c", "y")
    assert local_state(tmp_path / "nowhere") == ""
