"""Small HTTP servers for tests."""

import threading
from contextlib import contextmanager
from http.server import ThreadingHTTPServer


def serving(handler, **attributes):
    """Serve requests with a handler on a free port. The handler finds the attributes at its `server`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    vars(server).update(attributes)
    return running(server)


@contextmanager
def running(server):
    """Serve requests with a server that is made already."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
