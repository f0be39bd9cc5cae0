"""All that this package uses of the e2b SDKs and that is private to them: the only module with their private names.

The SDK has no public way to attach to a running instance by its access token alone, to run bash without a login
profile, to stream a file with a deadline, to read a range of a file, to read the response to a cell line by line, or to
connect without a proxy. So the versions of the SDKs are pinned to a tested range; a name that another version does not
have is an error that names the version.
"""

from __future__ import annotations

import copy
import functools
import inspect
from importlib.metadata import version
from typing import Any

from e2b import ConnectionConfig
from packaging.version import Version

from ags_flows.cloud.proxies import proxy_for
from ags_flows.cloud.responses import TooLarge, bounded, is_nested_deeply, parsed
from ags_flows.errors import UnsupportedError

TOKEN_HEADER = "X-Access-Token"
CODE_PORT = 49999
"""The port of the code interpreter."""

DIRECT = "http://direct.invalid"
"""The proxy of a configuration that uses no proxy. None would make the SDK read the environment."""

_ALL_HOSTS = "0.0.0.0/0,::/0,*"

BASH_ARGUMENTS = ["-p", "-c"]
"""`-p`: bash reads neither a profile nor the file that BASH_ENV names, and takes no functions from the environment."""


def private(owner: Any, name: str) -> Any:
    """Return an attribute that is private to the SDK.

    Raises:
        UnsupportedError: This version of the SDK has no such attribute.
    """
    try:
        return getattr(owner, name)
    except AttributeError as error:
        raise UnsupportedError(
            f"e2b {version('e2b')} with e2b-code-interpreter {version('e2b-code-interpreter')} has no "
            f"{type(owner).__name__}.{name}.",
            hint="Install the versions that ags-flows asks for: pip install --upgrade ags-flows.",
        ) from error


class LiveConfig(ConnectionConfig):
    """A configuration whose sandbox headers are always the same dictionary object."""

    def __init__(self, *, live: dict[str, str], sandbox_url: str | None, **options: Any) -> None:
        """Ignore variables of the environment that would change the destination of requests."""
        self.live = live
        super().__init__(sandbox_url=sandbox_url, debug=False, **options)
        vars(self)["_sandbox_url"] = sandbox_url
        self.api_key = None

    @property
    def sandbox_headers(self) -> dict[str, str]:
        """The headers of every request to the sandbox."""
        self.live.setdefault("User-Agent", self.headers["User-Agent"])
        return self.live


def attach(
    sandbox_class: Any,
    instance_id: str,
    token: str,
    *,
    domain: str,
    sandbox_url: str | None,
    envd_version: str,
    traffic_token: str | None = None,
    request_timeout: float = 60.0,
) -> Any:
    """Return a sandbox object of the SDK for a running instance.

    Args:
        sandbox_class: `e2b.Sandbox` or `e2b_code_interpreter.Sandbox`.
        instance_id: The instance.
        token: Its access token.
        domain: Such as `ap-guangzhou.tencentags.com`.
        sandbox_url: One URL for all sandboxes that routes by header (an emulator), or None for names.
        envd_version: What to take for granted of envd; it decides how files are uploaded.
        traffic_token: For ports other than envd's, where AGS gives one.
        request_timeout: Seconds for one request.

    Raises:
        ConfigurationError: A proxy variable of the environment is not the URL of a proxy.
    """
    live = {"E2b-Sandbox-Id": instance_id, "E2b-Sandbox-Port": "49983", TOKEN_HEADER: token}
    if traffic_token:
        live["E2B-Traffic-Access-Token"] = traffic_token
    proxy = _proxy_option(sandbox_url or f"https://49983-{instance_id}.{domain}")
    config = LiveConfig(live=live, sandbox_url=sandbox_url, domain=domain, request_timeout=request_timeout, proxy=proxy)
    sandbox = sandbox_class(
        sandbox_id=instance_id,
        sandbox_domain=domain,
        envd_version=Version(envd_version),
        envd_access_token=token,
        traffic_access_token=traffic_token,
        connection_config=config,
    )
    for part in ("_filesystem", "_commands", "_pty"):
        rpc = private(private(sandbox, part), "_rpc")
        rpc._codec = _CheckedCodec(private(rpc, "_codec"))
    _bound(sandbox._filesystem._rpc, config)
    return sandbox


class _CheckedCodec:
    """The SDK's codec, which accepts any JSON object, and overflows the stack with one that is nested too deeply."""

    def __init__(self, codec: Any) -> None:
        self._codec = codec

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)

    def decode(self, data: Any, message_class: Any) -> Any:
        """Decode a message."""
        from connectrpc.code import Code
        from connectrpc.errors import ConnectError

        if is_nested_deeply(data):
            raise ConnectError(Code.INTERNAL, "The response is JSON that is nested too deeply")
        message = self._codec.decode(data, message_class)
        fields = {field.json_name for field in message_class.desc().fields}
        # The parser ignores fields that it does not know: any other object would be a message without fields.
        if fields and message == message_class() and (sent := parsed(data)) and not fields & sent.keys():
            raise ConnectError(Code.INTERNAL, "The response is JSON of another program")
        return message


def _bound(rpc: Any, config: ConnectionConfig) -> None:
    """Limit the responses of the SDK's client of the file system, which it takes into memory whatever their size."""
    from connectrpc.code import Code
    from connectrpc.errors import ConnectError
    from e2b.api import proxy_to_config
    from e2b.api.client_sync import get_pyqwest_transport
    from e2b.envd.client_sync import PlainHTTPErrorTransport
    from pyqwest import SyncClient, SyncResponse

    class Bounded:
        def execute_sync(self, request: Any) -> SyncResponse:
            with inner.execute_sync(request) as response:
                try:
                    content = bounded(response.content)
                except TooLarge as error:
                    raise ConnectError(Code.OUT_OF_RANGE, str(error)) from error
                return SyncResponse(status=response.status, headers=response.headers, content=content)

    private(rpc, "_http_client")
    inner = get_pyqwest_transport(proxy_to_config(config.proxy), http_version=config.http_version)
    rpc._http_client = SyncClient(PlainHTTPErrorTransport(Bounded()))


def swap_token(sandbox: Any, token: str) -> None:
    """Give an attached object a new token; requests that are open go on with the old one."""
    sandbox.connection_config.live[TOKEN_HEADER] = token
    sandbox._SandboxBase__envd_access_token = token
    for part in (sandbox, sandbox.files, sandbox.commands, sandbox.pty):
        for client in vars(part).values():
            if hasattr(client, "build_request"):
                client.headers[TOKEN_HEADER] = token


def token_of(sandbox: Any) -> str:
    """Return the access token that a sandbox object has."""
    return str(private(sandbox, "_envd_access_token") or "")


def without_profile(commands: Any) -> Any:
    """Return a copy of an SDK sandbox's `commands` whose `run` starts bash without a profile."""
    copied = copy.copy(commands)
    copied._rpc = _WithoutProfile(private(commands, "_rpc"))
    return copied


class _WithoutProfile:
    """The SDK's process client, with other arguments of bash."""

    def __init__(self, rpc: Any) -> None:
        self._rpc = rpc

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rpc, name)

    def start(self, request: Any, **options: Any) -> Any:
        """Start a process of the SDK's request: `bash -l -c TEXT`."""
        process = request.process
        if list(process.args[:2]) != ["-l", "-c"]:
            raise RuntimeError(f"This e2b SDK starts commands by {list(process.args[:-1])}, not by bash -l -c.")
        process.args[:2] = BASH_ARGUMENTS
        return self._rpc.start(request, **options)


def post_file(sandbox: Any, content: Any, parameters: dict[str, str], timeout: float) -> Any:
    """Send a stream to envd as a file. The SDK's own method gives a stream no deadline."""
    client = private(sandbox.files, "_envd_api")
    headers = {"Content-Type": "application/octet-stream"}
    return client.post("/files", content=content, params=parameters, headers=headers, timeout=timeout)


def get_range(sandbox: Any, offset: int, size: int, parameters: dict[str, str], timeout: float) -> Any:
    """Return the open response of envd to a request for a range of a file."""
    # Older versions have one client for all files.
    client = getattr(sandbox.files, "_envd_api_download", None) or private(sandbox.files, "_envd_api")
    headers = {"Range": f"bytes={offset}-{offset + size - 1}", "Accept-Encoding": "identity"}
    return client.stream("GET", "/files", params=parameters, headers=headers, timeout=timeout)


def post_cell(sandbox: Any, body: dict[str, Any], timeout: Any) -> Any:
    """Return the open response of the code interpreter to a cell."""
    headers = {
        "E2b-Sandbox-Id": sandbox.sandbox_id,
        "E2b-Sandbox-Port": str(CODE_PORT),
        TOKEN_HEADER: token_of(sandbox),
        "E2B-Traffic-Access-Token": sandbox.traffic_access_token,
    }
    return private(sandbox, "_client").stream(
        "POST",
        f"{private(sandbox, '_jupyter_url')}/execute",
        json=body,
        headers={name: value for name, value in headers.items() if value},
        timeout=timeout,
    )


def raise_if_gone(sandbox: Any, error: Exception) -> None:
    """Raise the SDK's error of a sandbox that ended, if that is why a connection was lost."""
    private(sandbox, "_handle_connection_error")(error)


class TokenWithContexts:
    """Mixin of a sandbox class of the code interpreter: it sends the token with every request, not only with code."""

    @property
    def _client(self) -> Any:
        """The client of the code interpreter."""
        client = private(super(), "_client")
        client.headers[TOKEN_HEADER] = token_of(self)
        client.event_hooks["response"].append(_read_bounded)
        return client


def _read_bounded(response: Any) -> None:
    """Read a response of the code interpreter in bounded memory, but for that of a cell, which is a stream."""
    if not response.request.url.path.endswith("/execute"):
        # The attribute in which httpx keeps a response that was read.
        response._content = bounded(response.iter_bytes())


@functools.cache
def interpreter_class() -> type[Any]:
    """Return the sandbox class of the code interpreter, with `TokenWithContexts`."""
    from e2b_code_interpreter import Sandbox

    return type("InterpreterSandbox", (TokenWithContexts, Sandbox), {})


class RefreshedParts(TokenWithContexts):
    """Mixin of a sandbox class: before each use of its parts, `refresh` is called."""

    def refresh(self) -> None:
        """Acquire the token again if it is about to expire."""
        raise NotImplementedError

    @property
    def files(self) -> Any:
        """Files of the sandbox."""
        self.refresh()
        return private(self, "_filesystem")

    @property
    def commands(self) -> Any:
        """Commands in the sandbox."""
        self.refresh()
        return private(self, "_commands")

    @property
    def pty(self) -> Any:
        """Terminals in the sandbox."""
        self.refresh()
        return private(self, "_pty")

    @property
    def _client(self) -> Any:
        """The client of the code interpreter."""
        self.refresh()
        return super()._client


def without_retention(run: Any) -> dict[str, bool]:
    """Return the option that keeps the SDK from holding all output in memory, where this version has it."""
    return {"retain_output": False} if "retain_output" in _keywords(run.__func__) else {}


@functools.cache
def _keywords(function: Any) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def _proxy_option(url: str) -> str:
    """Return the `proxy` option of the SDK for a URL: a proxy, or `DIRECT`."""
    _teach_direct()
    return proxy_for(url) or DIRECT


def _teach_direct() -> None:
    """Make the e2b SDK connect directly where its proxy is `DIRECT`: it has no option for that."""
    from e2b.api import ProxyConfig
    from pyqwest import Proxy

    original = ProxyConfig.to_pyqwest
    if getattr(original, "knows_direct", False):
        return

    def to_pyqwest(config: ProxyConfig) -> Any:
        return Proxy(DIRECT, no_proxy=_ALL_HOSTS) if config.url == DIRECT else original(config)

    vars(to_pyqwest)["knows_direct"] = True
    ProxyConfig.to_pyqwest = to_pyqwest  # type: ignore[method-assign, assignment]
