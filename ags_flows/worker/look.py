"""A look from inside a sandbox before its flow starts: whether it has Prefect, and reaches the Prefect server."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.retry import persistently
from ags_flows.errors import ConfigurationError, UnsupportedError
from ags_flows.run.redaction import Redactor

LOOK_TIMEOUT = 60.0

# The request is the first one of Prefect's client: its certificates, proxies, credentials and headers. Prefect itself
# would take seconds to import. Its Python has the certificates that it trusts.
_LOOK = r"""
prefect=$(command -v prefect) || { echo '{"missing": "the command prefect"}'; exit; }
IFS= read -r python <"$prefect"; python=${python#\#!}; python=${python%% *}
case $python in */python*) [ -x "$python" ] || python= ;; *) python= ;; esac
[ -n "$python" ] || python=$(command -v python3 || command -v python) || { echo '{"missing": "Python"}'; exit; }
exec "$python" - <<'END'
import base64, json, os, ssl, urllib.error, urllib.parse, urllib.request

def report(**found):
    print("\n" + json.dumps(found))
    raise SystemExit

setting = lambda name: os.environ.get(name, "")
url = setting("PREFECT_API_URL").rstrip("/") + "/health"
proxies = urllib.request.getproxies()
if "all" in proxies:
    proxies = {"http": proxies["all"], "https": proxies["all"], **proxies}
if proxies.get(urllib.parse.urlsplit(url).scheme, "").startswith("socks"):
    report(unknown="the standard library has no SOCKS")
headers = {"User-Agent": "prefect (ags-flows)", "Accept": "*/*"}
try:
    headers.update(json.loads(setting("PREFECT_CLIENT_CUSTOM_HEADERS") or "{}"))
except ValueError:
    report(unreachable="PREFECT_CLIENT_CUSTOM_HEADERS is not JSON")
if setting("PREFECT_API_AUTH_STRING"):
    headers["Authorization"] = "Basic " + base64.b64encode(setting("PREFECT_API_AUTH_STRING").encode()).decode()
elif setting("PREFECT_API_KEY"):
    headers["Authorization"] = "Bearer " + setting("PREFECT_API_KEY")
try:
    trusted = setting("PREFECT_API_SSL_CERT_FILE") or setting("SSL_CERT_FILE")
    if not trusted:
        try:
            import certifi
            trusted = certifi.where()
        except ImportError:
            trusted = None
    context = ssl.create_default_context(cafile=trusted)
    if setting("PREFECT_API_TLS_INSECURE_SKIP_VERIFY").lower() in ("1", "true", "t", "yes", "y", "on"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    handlers = urllib.request.ProxyHandler(proxies), urllib.request.HTTPSHandler(context=context)
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.build_opener(*handlers).open(request, timeout=15) as response:
        body = response.read(1 << 16)
    if body.strip()[:1] == b"<":
        report(unreachable="GET " + url + " responds with a page, not with JSON: the URL of the API ends with /api")
except urllib.error.HTTPError as error:
    # Prefect's client repeats the others.
    if error.code < 500 and error.code not in (408, 429):
        hint = "the URL of the API ends with /api" if error.code == 404 else "credentials, custom headers, proxies"
        report(unreachable="GET " + url + " responds with status " + str(error.code) + ": check " + hint)
except Exception as error:
    report(unreachable=str(getattr(error, "reason", error)) or type(error).__name__)
report()
END
"""


def look(plane: DataPlane, env: Mapping[str, str], redactor: Redactor) -> None:
    """Find out whether a flow can run in a sandbox.

    Args:
        plane: The sandbox.
        env: Environment of the flow's process.
        redactor: Masks what is secret in it.

    Raises:
        UnsupportedError: The image has no Prefect.
        ConfigurationError: The sandbox does not reach the Prefect server.
    """
    url = env.get("PREFECT_API_URL", "")
    if not url:
        raise ConfigurationError("api_url: the worker has no PREFECT_API_URL.", hint="Set it, or the variable api_url.")
    found = persistently(lambda: plane.run(_LOOK, env=env, timeout=LOOK_TIMEOUT))
    try:
        report = json.loads(found.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        shown = redactor.text((found.stderr or found.stdout).strip()[-300:])
        report = {"missing": f"bash and coreutils ({shown})"}
    if missing := report.get("missing"):
        raise UnsupportedError(
            f"The image of sandbox {plane.instance_id} lacks {missing}.",
            hint="Choose an image with Prefect, such as prefecthq/prefect:3-latest.",
        )
    if reason := report.get("unreachable"):
        raise ConfigurationError(
            f"The sandbox cannot reach the Prefect API at {url}: {redactor.text(reason)}.",
            hint="Set the variable api_url to a URL that sandboxes reach, and check the network of the tool.",
        )
