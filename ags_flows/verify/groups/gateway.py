"""Checks of the way to the ports of a sandbox."""

from __future__ import annotations

from ags_flows.verify.account import Account
from ags_flows.verify.check import Group, expect

GROUP = Group("gateway", instances=1)
ENVD, CODE, PORT = 49983, 49999, 8123
_SERVER = """
import http.server, sys
class Echo(http.server.BaseHTTPRequestHandler):
    def respond(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        text = f"{self.command} {self.path} {len(body)}".encode()
        self.send_response(200); self.send_header("Content-Length", str(len(text))); self.end_headers()
        self.wfile.write(text)
    do_GET = do_POST = do_PUT = respond
    def log_message(self, *values): pass
http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Echo).serve_forever()
"""


def _serve(account: Account) -> None:
    plane = account.plane()
    plane.write("verify_echo.py", _SERVER.encode())
    plane.run(
        f"nohup python3 verify_echo.py {PORT} >/dev/null 2>&1 </dev/null & "
        f"for i in $(seq 100); do (exec 3<>/dev/tcp/127.0.0.1/{PORT}) 2>/dev/null && exit 0; sleep 0.1; done; exit 1"
    )


def _get(account: Account, path: str, method: str = "GET", **options: object) -> str:
    account.once("echo", lambda: _serve(account))
    response = account.http(method, account.instance().id, PORT, path, account.token(), **options)
    expect(response.status_code == 200, f"status {response.status_code}")
    return response.text


@GROUP.check
def envd_is_healthy(account: Account) -> None:
    """The health of envd is asked for without a token."""
    status = account.http("GET", account.instance().id, ENVD, "/health").status_code
    expect(status in (200, 204), f"status {status}")


@GROUP.check
def server_is_reached(account: Account) -> None:
    """A server in the sandbox is reached by the URL of its port."""
    text = _get(account, "/")
    expect(text == "GET / 0", text)


@GROUP.check
def path_arrives_unchanged(account: Account) -> None:
    """Path and query arrive as they were sent."""
    path = "/a%20b/c%2Fd/%C3%BC?x=1&y=%20"
    text = _get(account, path)
    expect(text == f"GET {path} 0", text)


@GROUP.check
def body_arrives_whole(account: Account) -> None:
    """A body of 4 MiB arrives whole."""
    text = _get(account, "/", "POST", content=b"x" * (4 << 20))
    expect(text == f"POST / {4 << 20}", text)


@GROUP.check
def token_may_be_in_the_query(account: Account) -> None:
    """The token may be in the query, for links in a browser."""
    account.once("echo", lambda: _serve(account))
    response = account.http("GET", account.instance().id, PORT, f"/?access_token={account.token()}")
    expect(response.status_code == 200, f"status {response.status_code}")


@GROUP.check
def closed_port_is_told(account: Account) -> str:
    """A port on which nothing listens responds with status 502."""
    status = account.http("GET", account.instance().id, 8999, "/", account.token()).status_code
    account.answers["closed.port"] = status
    expect(status == 502, f"status {status}")
    return str(status)


@GROUP.check
def gone_sandbox_is_told(account: Account) -> str:
    """A sandbox that is gone responds with status 404 on every port."""
    instance = account.instance("gone")
    token = account.token("gone")
    account.stop(instance)
    seen = {
        name: account.http("GET", instance.id, port, path, token).status_code
        for name, port, path in (("envd", ENVD, "/health"), ("code", CODE, "/health"), ("port", PORT, "/"))
    }
    account.answers |= {f"gone.{name}": status for name, status in seen.items()}
    expect(set(seen.values()) == {404}, seen)
    return "404"
