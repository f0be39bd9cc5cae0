import pytest
from prefect.testing.standard_test_suites import BlockStandardTestSuite
from pydantic import SecretStr

from ags_flows import AGSConfig, SandboxJob, TencentCloudCredentials
from ags_flows.blocks.credentials import DOCUMENTATION
from ags_flows.errors import ConfigurationError, CredentialsError

VARIABLES = [
    "AGS_ENDPOINT",
    "AGS_REGION",
    "AGS_TIMEOUT",
    "TENCENTCLOUD_REGION",
    "TENCENTCLOUD_SECRET_ID",
    "TENCENTCLOUD_SECRET_KEY",
    "TENCENTCLOUD_TOKEN",
    "TENCENTCLOUD_ROLE_ARN",
]


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


class TestBlocks(BlockStandardTestSuite):
    @pytest.fixture(params=[AGSConfig, SandboxJob, TencentCloudCredentials], ids=lambda cls: cls.__name__)
    def block(self, request):
        return request.param

    def test_has_a_valid_image(self, block):
        # The picture of another host is broken wherever that host is out of reach; without one, the UI shows its own.
        assert block._logo_url is None

    def test_has_a_documentation_url(self, block):
        # A page of this project, or none: that of the vendor does not explain the block.
        assert block._documentation_url == DOCUMENTATION


def test_the_defaults_are_those_of_the_older_tool():
    config = AGSConfig()
    assert (config.region, config.domain) == ("ap-guangzhou", "ap-guangzhou.tencentags.com")
    assert (config.http_endpoint, config.timeout, config.port) == ("ags.tencentcloudapi.com", "1h", 8000)
    assert (config.image, config.image_registry_type, config.cpu, config.memory) == (
        "python:3.11",
        "enterprise",
        "1",
        "1Gi",
    )


def test_an_argument_overrides_the_environment_and_the_environment_overrides_the_default(monkeypatch):
    monkeypatch.setenv("AGS_TIMEOUT", "20m")
    assert AGSConfig().timeout == "20m"
    assert AGSConfig(timeout="5m").timeout == "5m"


def test_the_domain_follows_the_region():
    assert AGSConfig(region="ap-shanghai").domain == "ap-shanghai.tencentags.com"


def test_one_variable_points_both_planes_at_an_emulator(monkeypatch):
    monkeypatch.setenv("AGS_ENDPOINT", "http://127.0.0.1:8600")
    connection = AGSConfig().connection()
    assert connection.control_url == "http://127.0.0.1:8600"
    assert connection.instance_url("abc", 80) == "http://127.0.0.1:8600/sandbox/abc/80"


def test_a_port_of_the_real_cloud_has_a_separate_name():
    assert AGSConfig().connection().instance_url("abc", 80) == "https://80-abc.ap-guangzhou.tencentags.com"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"region": "ap-shanghai", "domain": "ap-guangzhou.tencentags.com"}, "disagree"),
        ({"timeout": "10s"}, "30s to 24h"),
        ({"timeout": "1 hour"}, "'1h30m'"),
        ({"port": 0}, "port"),
        ({"cpu": "many"}, "'many' is not an amount of CPU"),
        ({"memory": "1GB"}, "'1GB' is not an amount of memory"),
        ({"image": ""}, "the image name is empty"),
        ({"mount_path": "nix"}, "'nix' is not a mount path"),
        ({"mount_name": "envd"}, "mount_image"),
    ],
)
def test_a_wrong_field_is_refused_with_its_name_and_rule(fields, told):
    with pytest.raises(ConfigurationError, match=r"AGSConfig is not valid") as caught:
        AGSConfig(**fields)
    assert told in str(caught.value)


def test_missing_keys_name_the_variables_and_the_emulator():
    with pytest.raises(CredentialsError) as caught:
        AGSConfig().connection().require_keys()
    assert "TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY" in str(caught.value)
    assert "ags-flows emulator" in str(caught.value)


def test_keys_come_from_the_block_or_else_from_the_environment(monkeypatch):
    monkeypatch.setenv("TENCENTCLOUD_SECRET_ID", "env-id")
    monkeypatch.setenv("TENCENTCLOUD_SECRET_KEY", "env-key")
    assert AGSConfig().connection().require_keys() == ("env-id", "env-key")
    nested = AGSConfig(credentials=TencentCloudCredentials(secret_id="block-id", secret_key="block-key"))
    assert nested.connection().require_keys() == ("block-id", "block-key")
    direct = AGSConfig(credentials=nested.credentials, secret_id="own-id", secret_key="own-key")
    assert direct.connection().require_keys() == ("own-id", "own-key")


def test_a_session_token_of_the_environment_does_not_join_keys_of_a_block(monkeypatch):
    monkeypatch.setenv("TENCENTCLOUD_TOKEN", "env-token")
    assert TencentCloudCredentials(secret_id="a", secret_key="b").resolve()[2] is None


def test_keys_of_the_environment_are_not_copied_into_the_block(monkeypatch):
    monkeypatch.setenv("TENCENTCLOUD_SECRET_KEY", "env-key")
    config = AGSConfig()
    assert config.secret_key.get_secret_value() == ""
    assert config.credentials.secret_key.get_secret_value() == ""


def test_a_mask_that_came_back_from_the_server_counts_as_empty(monkeypatch):
    monkeypatch.setenv("TENCENTCLOUD_SECRET_ID", "env-id")
    monkeypatch.setenv("TENCENTCLOUD_SECRET_KEY", "env-key")
    config = AGSConfig(secret_id=SecretStr("**********"), secret_key=SecretStr("**********"))
    assert config.connection().require_keys() == ("env-id", "env-key")


def test_no_key_stands_in_the_text_of_a_block_or_a_connection():
    config = AGSConfig(secret_id="AKID-not-secret", secret_key="very-secret-key")
    assert "very-secret-key" not in repr(config) + str(config) + repr(config.connection())


@pytest.mark.parametrize("block", [AGSConfig, TencentCloudCredentials])
def test_forms_show_keys_as_passwords(block):
    fields = block.model_json_schema()["properties"]
    for name in ("secret_id", "secret_key"):
        assert fields[name]["format"] == "password"
        assert fields[name]["default"] == ""


def test_no_key_may_be_given_as_none():
    assert TencentCloudCredentials(secret_id=None).secret_id.get_secret_value() == ""


def test_a_key_of_the_wrong_kind_is_refused_without_being_shown():
    with pytest.raises(ConfigurationError, match="secret_key") as caught:
        TencentCloudCredentials(secret_key=["very-secret"])
    assert "very-secret" not in str(caught.value)
