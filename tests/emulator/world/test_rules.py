"""Durations, quantities, mounts and configurations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ags_flows.emulator.world import configuration, mounts
from ags_flows.emulator.world.durations import seconds_of
from ags_flows.emulator.world.readiness import starts_envd
from ags_flows.emulator.world.refusal import Refusal
from ags_flows.emulator.world.tokens import Tokens


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5m", 300), ("300s", 300), ("1h", 3600), ("1h30m", 5400), ("5m0s", 300), ("24h", 86400), ("90", 90)],
)
def test_durations_are_read_in_all_forms(text, seconds):
    assert seconds_of(text, "Timeout", least=30) == seconds


@pytest.mark.parametrize(
    "text", ["", "h", "5", "29s", "24h1s", "1.5h", "-5m", "5 m", "m5", "٥m", "9" * 400 + "s", "1s1m"]
)
def test_an_invalid_or_out_of_range_duration_is_refused(text):
    with pytest.raises(Refusal, match="Timeout"):
        seconds_of(text, "Timeout", least=30)


@given(st.text(max_size=40))
def test_no_text_breaks_the_readers(text):
    for read in (
        lambda: seconds_of(text, "Timeout"),
        lambda: configuration.milli_cpus(text),
        lambda: configuration.kibibytes(text, "Memory"),
    ):
        try:
            assert read() >= 1
        except Refusal as refusal:
            assert refusal.code.startswith("InvalidParameterValue")


def test_an_instances_configuration_is_laid_over_its_tools():
    base = {
        "Image": "a:1",
        "Env": [{"Name": "A", "Value": "1"}, {"Name": "B", "Value": "1"}],
        "Resources": {"CPU": "1", "Memory": "1Gi"},
    }
    over = {"Env": [{"Name": "B", "Value": "2"}], "Resources": {"CPU": "2"}}
    assert configuration.merged(base, over) == {
        "Image": "a:1",
        "Env": [{"Name": "A", "Value": "1"}, {"Name": "B", "Value": "2"}],
        "Resources": {"CPU": "2", "Memory": "1Gi"},
    }
    assert configuration.merged(None, None) is None


def mount(name="data", target="/data", readonly=False, path="/in"):
    source = {"Cos": {"BucketName": "b-1", "BucketPath": path}}
    return {"Name": name, "MountPath": target, "ReadOnly": readonly, "StorageSource": source}


def test_mounts_become_directories_below_the_volumes_folder(tmp_path):
    volumes = tmp_path / "volumes"
    [found] = mounts.on_host(volumes, mounts.expand([mount(path="/../../in")], None))
    assert found.source == (volumes / "cos" / "b-1" / "in").resolve() and found.source.is_dir()
    assert (found.target, found.readonly) == ("/data", False)
    image = {"Image": {"Reference": "r.io/app:1", "SubPath": "/bin"}}
    [found] = mounts.on_host(
        volumes, mounts.expand([{"Name": "i", "MountPath": "/mnt/i", "StorageSource": image}], None)
    )
    assert found.readonly and found.source == (volumes / "images" / "r.io_app_1" / "bin").resolve()


def test_a_link_in_the_volumes_folder_does_not_lead_out_of_it(tmp_path):
    (tmp_path / "volumes" / "cos").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "volumes" / "cos" / "b-1").symlink_to(tmp_path / "outside")
    with pytest.raises(Refusal, match="leaves"):
        mounts.on_host(tmp_path / "volumes", mounts.expand([mount(path="/made")], None))

    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ([{"Name": "other"}], "ResourceNotFound.StorageMount"),
        (
            [{"Name": "data"}, {"Name": "data", "MountPath": "/mnt/b", "SubPath": "b"}],
            "InvalidParameterValue.MountOption",
        ),
        (
            [
                {"Name": "data", "MountPath": "/mnt/a", "SubPath": "a"},
                {"Name": "data", "MountPath": "/mnt/b", "SubPath": "a"},
            ],
            "InvalidParameterValue.MountOption",
        ),
        ([{"Name": "data", "SubPath": "../x"}], "InvalidParameterValue.MountOption"),
        ([{"Name": "fixed", "ReadOnly": False}], "InvalidParameterValue.MountOption"),
        ([{"Name": "data", "MountPath": "/mnt/fixed"}], "InvalidParameterValue.MountOption"),
    ],
)
def test_mount_options_follow_their_rules(options, code):
    tool_mounts = [mount(), mount("fixed", "/mnt/fixed", readonly=True)]
    with pytest.raises(Refusal) as caught:
        mounts.expand(tool_mounts, options)
    assert caught.value.code == code


def test_one_mount_may_be_used_twice_with_different_paths():
    options = [
        {"Name": "data", "MountPath": "/mnt/a", "SubPath": "a"},
        {"Name": "data", "MountPath": "/mnt/b", "SubPath": "b", "ReadOnly": True},
    ]
    found = mounts.expand([mount()], options)
    assert [(each["MountPath"], each["SubPath"], each["ReadOnly"]) for each in found] == [
        ("/mnt/a", "a", False),
        ("/mnt/b", "b", True),
    ]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["/mnt/envd", "-port", "49983"], True),
        (["sh", "-c", "/envd/envd"], True),
        (["/bin/bash", "-lc", "exec /usr/bin/envd -port 49983 &"], True),
        (["sh", "-c", "envd & python3 -m http.server"], False),
        (["python3", "envd"], False),
        (["sh", "-c", "'"], False),
        ([], False),
    ],
)
def test_a_command_that_only_starts_envd_is_recognised(argv, expected):
    assert starts_envd(argv) is expected


def test_tokens_end_and_open_what_they_should():
    now = [0.0]
    tokens = Tokens(lambda: now[0])
    acquired, end = tokens.acquire(60)
    assert end == 60 and tokens.accepts(acquired) and tokens.accepts(tokens.main)
    assert not tokens.accepts(tokens.traffic) and tokens.accepts_traffic(tokens.traffic)
    assert not tokens.accepts(None) and not tokens.accepts("") and not tokens.accepts("é")
    now[0] = 61.0
    assert not tokens.accepts(acquired) and tokens.accepts(tokens.main)
    main = tokens.main
    tokens.expire()
    assert not tokens.accepts(main) and tokens.accepts(tokens.main)
    assert Tokens(lambda: 0.0, open_to_all=True).accepts(None)
