"""Temporary keys, from servers on loopback that speak the protocols of STS and of a CVM's metadata service."""

import datetime
import ipaddress
import json
import ssl
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ags_flows import AGSConfig, TencentCloudCredentials
from ags_flows.cloud.connection import Connection
from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.cloud.keys import KeySource, credential_of
from ags_flows.errors import ConfigurationError, CredentialsError, ServiceError, UnreachableError
from tests.servers import running

ROLE = "qcs::cam::uin/100000000001:roleName/nightly"


class Server(ThreadingHTTPServer):
    """Responds with the return value of `answer`, and keeps the requests."""

    def __init__(self, answer, tls=None):
        self.asked = []
        self.answer = answer
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server_port}"
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        told = self.server.answer(self.path, json.loads(body or b"{}"))
        data = (told if isinstance(told, str) else json.dumps(told)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET

    def log_message(self, *_):
        pass


def served(answer, tls=None):
    return running(Server(answer, tls))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return file


@pytest.fixture
def sts(certificate, ags_emulator, monkeypatch):
    """STS, whose temporary keys are those that the emulator knows; they live for `seconds`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    # The SDK trusts the certificates of certifi and ignores the environment.
    monkeypatch.setattr(certifi, "where", lambda: str(certificate))

    def answer(_path, _body):
        if server.refusal:
            return {"Response": {"Error": {"Code": server.refusal, "Message": "no"}, "RequestId": "r-1"}}
        keys = {"Token": "t", "TmpSecretId": ags_emulator.secret_id, "TmpSecretKey": ags_emulator.secret_key}
        return {"Response": {"Credentials": keys, "ExpiredTime": int(time.time()) + server.seconds, "RequestId": "r"}}

    with served(answer, context) as server:
        server.refusal, server.seconds = None, 7200
        yield server


def assuming(sts, **fields):
    values = {"method": "assume-role", "role_arn": ROLE, "sts_endpoint": sts.address, **fields}
    return TencentCloudCredentials(**{"secret_id": "long-id", "secret_key": "long-key", **values})


def config_with(credentials, emulator):
    return AGSConfig(http_endpoint=emulator.url, credentials=credentials)


def test_a_role_is_assumed_once_for_many_calls(sts, ags_emulator):
    control = config_with(assuming(sts, role_session_name="etl", role_duration=3600), ags_emulator).control_plane()
    sts.seconds = 3600
    control.list_tools()
    control.list_tools()
    [(_, headers, body)] = sts.asked
    assert headers["x-tc-action"] == "AssumeRole"
    assert headers["authorization"].startswith("TC3-HMAC-SHA256 Credential=long-id/")
    assert json.loads(body) == {"RoleArn": ROLE, "RoleSessionName": "etl", "DurationSeconds": 3600}


def test_keys_of_a_role_are_renewed_before_they_expire(sts, ags_emulator):
    control = config_with(assuming(sts, role_session_name="renewed"), ags_emulator).control_plane()
    sts.seconds = 5
    control.list_tools()
    control.list_tools()
    assert len(sts.asked) >= 2


def test_keys_of_the_configuration_assume_the_role_of_its_credentials(sts, ags_emulator):
    credentials = assuming(sts, secret_id="", secret_key="", role_session_name="own")
    own = AGSConfig(http_endpoint=ags_emulator.url, credentials=credentials, secret_id="own-id", secret_key="k")
    own.control_plane().list_tools()
    assert "Credential=own-id/" in sts.asked[0][1]["authorization"]


def test_a_refused_role_has_a_hint_and_is_not_retried(sts, ags_emulator):
    sts.refusal = "UnauthorizedOperation"
    with pytest.raises(CredentialsError, match="sts:AssumeRole") as caught:
        config_with(assuming(sts, role_session_name="refused"), ags_emulator).control_plane().list_tools()
    assert caught.value.request_id == "r-1"
    assert not caught.value.retryable
    assert "long-key" not in str(caught.value)


def test_an_sts_that_fails_for_a_moment_is_retried(sts, ags_emulator):
    control = config_with(assuming(sts, role_session_name="again"), ags_emulator).control_plane()
    sts.refusal = "InternalError"
    with pytest.raises(ServiceError) as caught:
        control.list_tools()
    assert caught.value.retryable
    sts.refusal = None
    control.list_tools()


def test_an_sts_that_is_not_there_is_named(ags_emulator):
    credentials = TencentCloudCredentials(
        method="assume-role", role_arn=ROLE, sts_endpoint="127.0.0.1:9", secret_id="a", secret_key="b"
    )
    with pytest.raises(UnreachableError, match=r"https://127\.0\.0\.1:9"):
        config_with(credentials, ags_emulator).control_plane().list_tools()


def test_temporary_keys_assume_no_role(ags_emulator):
    credentials = TencentCloudCredentials(
        method="assume-role", role_arn=ROLE, secret_id="a", secret_key="b", session_token="t"
    )
    with pytest.raises(CredentialsError, match="temporary"):
        config_with(credentials, ags_emulator).control_plane()


def test_a_pod_of_tke_uses_its_service_account(sts, ags_emulator, monkeypatch, tmp_path):
    token = tmp_path / "token"
    token.write_text("jwt")
    for name, value in {
        "TKE_REGION": "ap-guangzhou",
        "TKE_PROVIDER_ID": "tke",
        "TKE_WEB_IDENTITY_TOKEN_FILE": str(token),
        "TKE_ROLE_ARN": ROLE,
    }.items():
        monkeypatch.setenv(name, value)
    credentials = TencentCloudCredentials(method="tke-oidc", sts_endpoint=sts.address)
    config_with(credentials, ags_emulator).control_plane().list_tools()
    [(_, headers, body)] = sts.asked
    assert headers["x-tc-action"] == "AssumeRoleWithWebIdentity"
    assert json.loads(body)["WebIdentityToken"] == "jwt"


def test_outside_of_tke_the_missing_variable_is_named(ags_emulator):
    with pytest.raises(CredentialsError, match="TKE_REGION"):
        config_with(TencentCloudCredentials(method="tke-oidc"), ags_emulator).control_plane()


def cvm(url, emulator, role=""):
    source = KeySource(method="cvm-role", metadata_url=url, cvm_role=role)
    return Connection(endpoint=emulator.url, domain=emulator.url, key_source=source)


def test_a_cvm_uses_the_role_that_is_bound_to_it(ags_emulator):
    def answer(path, _body):
        if path == "/latest/meta-data/cam/security-credentials/":
            return "nightly-role"
        assert path.endswith("/nightly-role")
        keys = {"TmpSecretId": ags_emulator.secret_id, "TmpSecretKey": ags_emulator.secret_key, "Token": "t"}
        return {**keys, "Code": "Success", "ExpiredTime": int(time.time()) + metadata.seconds}

    with served(answer) as metadata:
        metadata.seconds = 3600
        control = ControlPlane.of(cvm(f"http://{metadata.address}/latest/meta-data/", ags_emulator))
        control.list_tools()
        control.list_tools()
        assert len(metadata.asked) == 2
        metadata.seconds = 60  # less than the SDK's five minutes
        other = ControlPlane.of(cvm(f"http://{metadata.address}/latest/meta-data/", ags_emulator, role="nightly-role"))
        other.list_tools()
        assert len(metadata.asked) > 3


def test_a_machine_that_is_not_a_cvm_has_a_clear_error(ags_emulator):
    credential = credential_of(cvm("http://127.0.0.1:9/latest/meta-data/", ags_emulator))
    with pytest.raises(UnreachableError, match="a CVM to which a role is bound"):
        credential.get_credential_info()


def test_a_role_that_the_cvm_has_not_is_named(ags_emulator):
    with served(lambda *_: {"Code": "Failed"}) as metadata:
        credential = credential_of(cvm(f"http://{metadata.address}/", ags_emulator, role="other"))
        with pytest.raises(CredentialsError, match="'other'"):
            credential.get_credential_info()


def test_keys_come_from_the_profile_file(ags_emulator, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    credentials = TencentCloudCredentials(method="profile")
    with pytest.raises(CredentialsError, match=r"\[default\] in ~/\.tencentcloud/credentials"):
        credentials.resolve()
    file = tmp_path / ".tencentcloud" / "credentials"
    file.parent.mkdir()
    file.write_text("[other]\nsecret_id = x\n")
    with pytest.raises(CredentialsError, match="no section"):
        credentials.resolve()
    file.write_text(f"[default]\nsecret_id = {ags_emulator.secret_id}\nsecret_key = {ags_emulator.secret_key}\n")
    assert config_with(credentials, ags_emulator).control_plane().list_tools() is not None


def test_the_client_is_the_sdks_own(ags_emulator):
    keys = TencentCloudCredentials(secret_id=ags_emulator.secret_id, secret_key=ags_emulator.secret_key)
    client = keys.get_client(endpoint=ags_emulator.url)
    assert client.call_json("DescribeSandboxToolList", {})["Response"]["TotalCount"] >= 0


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"method": "assume-role"}, "role_arn"),
        ({"method": "guess"}, "method"),
        ({"role_duration": 60}, "role_duration"),
        ({"role_session_name": "a b"}, "role_session_name"),
        ({"sts_endpoint": "https://sts.tencentcloudapi.com"}, "sts_endpoint"),
    ],
)
def test_a_wrong_field_is_refused_before_any_request(fields, told):
    with pytest.raises(ConfigurationError, match=told):
        TencentCloudCredentials(**fields)


def test_keys_with_blanks_around_them_have_a_clear_error(ags_emulator):
    with pytest.raises(CredentialsError, match="space"):
        config_with(TencentCloudCredentials(secret_id=" a", secret_key="b"), ags_emulator).control_plane()


def test_the_key_of_the_e2b_api_comes_from_the_block_or_the_environment(monkeypatch):
    with pytest.raises(CredentialsError, match="E2B_API_KEY"):
        TencentCloudCredentials().require_e2b_key()
    monkeypatch.setenv("E2B_API_KEY", "from-environment")
    assert TencentCloudCredentials().require_e2b_key() == "from-environment"
    assert TencentCloudCredentials(e2b_api_key="own").require_e2b_key() == "own"
