"""Profiles of accounts: written, compared, refused when they are wrong."""

import json
import math

import pytest

from ags_flows.emulator import Emulator
from ags_flows.errors import ConfigurationError
from ags_flows.testing import config_for
from ags_flows.verify.account import PREFIX
from ags_flows.verify.command import Options, verify
from ags_flows.verify.profile import Profile


def test_a_profile_holds_no_ids_and_no_secrets_and_is_compared(tmp_path, ags_config, ags_emulator):
    file = tmp_path / "profile.json"
    assert verify(ags_config, Options(only=["errors", "tokens"], record=file)) == 0
    text = file.read_text()
    for instance in ags_config.control_plane().list_instances():
        assert instance.id not in text and instance.tool_id not in text
    assert ags_emulator.secret_key not in text and "sit_" not in text and PREFIX not in text
    profile = Profile.load(file)
    changed = Profile(**{**vars(profile), "answers": {**profile.answers, "unauthorized.envd": 403}})
    assert [row["what"] for row in profile.differences(changed)] == ["unauthorized.envd"]
    assert profile.differences(profile) == []


def without_durations(file):
    """They depend on what else this machine does."""
    document = json.loads(file.read_text())
    document["answers"] = {name: value for name, value in document["answers"].items() if "seconds" not in name}
    file.write_text(json.dumps(document))


def test_a_change_is_listed_once_and_what_has_not_changed_ends_with_0(tmp_path, ags_config, capsys):
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    assert verify(ags_config, Options(only=["tokens"], record=before)) == 0
    with Emulator(profile={"answers": {"unauthorized.port": 403}}) as emulator:
        config = config_for(emulator)
        assert verify(config, Options(only=["tokens"], record=after)) == 1
        without_durations(before)
        without_durations(after)
        capsys.readouterr()
        assert verify(config, Options(only=["tokens"], against=after)) == 0
        assert f"Nothing differs from {after}." in capsys.readouterr().out
        assert verify(config, Options(only=["tokens"], against=before, as_json=True)) == 1
    found = json.loads(capsys.readouterr().out)["differences"]
    assert {"what": "unauthorized.port", "now": 403, "recorded": 401} in found
    assert "tokens: The other ports need a token too" not in {row["what"] for row in found}


def test_a_profile_with_a_format_alone_is_an_empty_one(tmp_path, ags_config):
    file = tmp_path / "profile.json"
    file.write_text('{"format": 1}')
    assert Profile.load(file) == Profile("", "")
    for field in ("region", "answers", "codes", "checks"):
        wrong = tmp_path / "wrong.json"
        wrong.write_text(json.dumps({"format": 1, field: [7]}))
        with pytest.raises(ConfigurationError, match=f"wrong.json.*{field}"):
            Profile.load(wrong)
    assert verify(ags_config, Options(only=["quotas"], against=file)) == 0


@pytest.mark.parametrize(
    ("one", "other", "differ"), [(0.1, 0.9, False), (1.0, 2.9, False), (1.0, 3.1, True), (4.0, 1.2, True), (0, 5, True)]
)
def test_durations_differ_when_they_are_far_apart(one, other, differ):
    profiles = [Profile("", "", {"stop.seconds": seconds}) for seconds in (one, other)]
    assert bool(profiles[0].differences(profiles[1])) == differ


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"format": 2}'])
def test_a_file_that_is_not_a_profile_is_refused_by_both(tmp_path, text):
    file = tmp_path / "profile.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigurationError, match=str(file)):
        Profile.load(file)
    with pytest.raises(ValueError, match=str(file)):
        Emulator(profile=file)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"answers": []}, "`answers`: .* dictionary"),
        ({"codes": "x"}, "`codes`: .* dictionary"),
        ({"answers": {"list.misses": "a"}}, '`answers.list.misses`: .* number, got "a"'),
        ({"answers": {"list.misses": 7}}, "`answers.list.misses`: .* less than or equal to 1, got 7"),
        ({"answers": {"token.lifetime": -1}}, "`answers.token.lifetime`: .* greater than 0, got -1"),
        ({"answers": {"stop.seconds": True}}, "`answers.stop.seconds`: .* number, got true"),
        ({"answers": {"stop.seconds": math.inf}}, "`answers.stop.seconds`: .* finite number, got Infinity"),
        ({"answers": {"start.repeat": "again"}}, "`answers.start.repeat`: .* 'replay' or 'refuse', got \"again\""),
        ({"answers": {"start.status": "RUNING"}}, "`answers.start.status`: .* 'STARTING' or 'RUNNING', got \"RUNING\""),
        ({"answers": {"files.ranges": "yes"}}, '`answers.files.ranges`: .* boolean, got "yes"'),
        ({"answers": {"closed.port": 99}}, "`answers.closed.port`: .* greater than or equal to 100, got 99"),
        ({"answers": {"start.second": 1.0}}, "`answers.start.second`: unknown field, got 1.0"),
        ({"answer": {}}, "`answer`: unknown field"),
        (
            {"codes": {"ResourceNotFound.SandboxInstance": 5}},
            "`codes.ResourceNotFound.SandboxInstance`: .*string, got 5",
        ),
        ({"codes": {"ResourceNotFound.Sandbox": "NotFound"}}, "`codes.ResourceNotFound.Sandbox`: Input should be"),
        ({"answers": {"stop.seconds": -1, "list.misses": 7}}, "stop.seconds.*; .*list.misses|list.misses.*; .*stop"),
    ],
)
def test_a_wrong_value_of_a_profile_is_named(fields, reason):
    with pytest.raises(ValueError, match=reason):
        Emulator(profile={"format": 1, **fields})
