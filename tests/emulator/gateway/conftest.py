"""A gateway behind a real server; the ports of its sandbox are ports of this machine."""

import asyncio
import socket
import threading
import time
from types import SimpleNamespace

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute

from ags_flows.emulator.gateway import Gateway, StreamFaults
from ags_flows.emulator.world.profile import Profile

TOKEN = "the-token"


class Running:
    """An ASGI application on a free port, in a thread."""

    def __init__(self, app):
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(
            app, loop="asyncio", lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1
        )
        config.ws_max_size = 2**30
        config.ws = "websockets-sansio"
        self.server = uvicorn.Server(config)
        self.loop = None
        self.listener = listener
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def _run(self):
        async def serve():
            self.loop = asyncio.get_running_loop()
            await self.server.serve(sockets=[self.listener])

        asyncio.run(serve())
        self.listener.close()

    def stop(self):
        self.server.should_exit = True
        self.thread.join(20)


class Target:
    """A sandbox whose ports are this machine's."""

    def __init__(self, instance_id="sbi-1", **changes):
        self.instance_id = instance_id
        self.state = "running"
        self.auth_mode = "TOKEN"
        self.by_e2b = False
        self.masked_host = None
        self.tls_ports = ()
        self.code_app = None
        self.__dict__.update(changes)

    async def envd_app(self, scope, receive, send):
        await JSONResponse({"envd": scope["path"]})(scope, receive, send)

    def speaks_tls(self, port):
        return port in self.tls_ports

    def accepts(self, token):
        return token == TOKEN

    def connect(self, port):
        return socket.create_connection(("127.0.0.1", port))


@pytest.fixture(scope="session")
def inside():
    """A server as users run it in a sandbox; it keeps the requests that it got."""
    seen = SimpleNamespace(left=threading.Event(), cancelled=threading.Event())

    async def echo(request):
        seen.headers = dict(request.headers)
        return JSONResponse(
            {
                "method": request.method,
                "path": request.scope["raw_path"].decode(),
                "query": str(request.url.query),
                "headers": dict(request.headers),
                "body": (await request.body()).decode("latin-1"),
            },
            status_code=int(request.query_params.get("status", 200)),
            headers={"X-Answered": "yes", "Keep-Alive": "timeout=5"},
        )

    async def count(request):
        size = 0
        async for piece in request.stream():
            size += len(piece)
        return PlainTextResponse(str(size))

    async def big(request):
        async def pieces():
            for _ in range(int(request.query_params["mib"])):
                yield b"x" * (1 << 20)

        return StreamingResponse(pieces())

    async def events(request):
        async def lines():
            try:
                for number in range(int(request.query_params.get("n", 100_000))):
                    yield f"data: {number}\n\n"
                    await asyncio.sleep(float(request.query_params.get("every", 0.02)))
            finally:
                seen.left.set()

        return StreamingResponse(lines(), media_type="text/event-stream")

    async def both_ways(scope, receive, send):
        # By hand: Starlette's streaming responses consume the rest of the request.
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
            await send({"type": "http.response.body", "body": message.get("body", b"").upper(), "more_body": more})

    async def chat(websocket):
        protocol = "second" if "second" in websocket.scope["subprotocols"] else None
        seen.websocket_headers = dict(websocket.headers)
        await websocket.accept(subprotocol=protocol)
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                seen.code = message["code"]
                seen.left.set()
                return
            if message.get("text") == "bye":
                await websocket.close(code=4321, reason="as you wish")
                return
            if message.get("text") is not None:
                await websocket.send_text(message["text"][::-1])
            else:
                await websocket.send_bytes(message["bytes"][::-1])

    async def shut(websocket):
        await websocket.close()

    app = Starlette(
        routes=[
            Route("/count", count, methods=["POST"]),
            Route("/big", big),
            Route("/events", events),
            Mount("/both", both_ways),
            WebSocketRoute("/chat", chat),
            WebSocketRoute("/shut", shut),
            Route("/{rest:path}", echo, methods=["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"]),
        ]
    )
    running = Running(app)
    running.seen = seen
    yield running
    running.stop()


@pytest.fixture(scope="session")
def outside():
    """The gateway's server; `targets` are its sandboxes by id, `faults` its faults."""
    targets, faults = {}, None

    async def app(scope, receive, send):
        nonlocal faults
        connection = send.__self__

        def abort(reset):
            connection.transport.abort()

        scope.setdefault("extensions", {})["ags.abort"] = {"abort": abort}
        if gateway.route(scope) is None:
            await PlainTextResponse("not for a sandbox", status_code=418)(scope, receive, send)
            return
        await gateway.app(scope, receive, send)

    async def make():
        return StreamFaults()

    faults = asyncio.run(make())
    gateway = Gateway(targets.get, Profile({}), faults)
    running = Running(app)
    running.targets, running.faults = targets, faults
    yield running
    running.stop()


@pytest.fixture
def target(outside):
    """A fresh sandbox, and no faults."""
    target = Target()
    outside.targets.clear()
    outside.targets[target.instance_id] = target
    yield target
    outside.loop.call_soon_threadsafe(outside.faults.clear)


@pytest.fixture
def fault(outside):
    """Declares a fault."""

    def declare(kind, **more):
        async def add():
            return outside.faults.add(kind=kind, **more)

        return asyncio.run_coroutine_threadsafe(add(), outside.loop).result(10)

    return declare


@pytest.fixture
def client(outside, inside, target):
    """HTTP to the server in the sandbox, with the token."""
    inside.seen.left.clear()
    headers = {"Host": f"{inside.port}-sbi-1.localhost", "X-Access-Token": TOKEN}
    with httpx.Client(base_url=outside.url, headers=headers, timeout=20, trust_env=False) as client:
        yield client
