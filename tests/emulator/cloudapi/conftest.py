"""One emulator for this folder, an empty account for each test, and the real SDK's client."""

import json

import pytest
from tencentcloud.ags.v20250920 import ags_client, models
from tencentcloud.common import credential
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile

from ags_flows.emulator import Emulator


class Cloud:
    """The real SDK: `cloud("StopSandboxInstance", InstanceId=...)` returns the response as plain JSON values."""

    def __init__(self, emulator, region="ap-guangzhou", secret_id=None, secret_key=None, token=None):
        keys = credential.Credential(secret_id or emulator.secret_id, secret_key or emulator.secret_key, token)
        http = HttpProfile(protocol="http", endpoint=emulator.url.removeprefix("http://"), keepAlive=True)
        self.client = ags_client.AgsClient(keys, region, ClientProfile(httpProfile=http))

    def __call__(self, action, **fields):
        request = getattr(models, f"{action}Request")()
        request.from_json_string(json.dumps(fields))
        return json.loads(getattr(self.client, action)(request).to_json_string())

    def raw(self, action, body):
        """Send a signed request that the SDK's models would reject."""
        return self.client.call_json(action, body)["Response"]

    def close(self):
        self.client.request.conn._session.close()


@pytest.fixture(scope="session")
def emulator_of_folder():
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def emulator(emulator_of_folder):
    emulator_of_folder.reset()
    return emulator_of_folder


@pytest.fixture
def cloud_with(emulator):
    made = []

    def make(**options):
        made.append(Cloud(options.pop("emulator", emulator), **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def cloud(cloud_with):
    return cloud_with()
