"""The HTTP of the test servers: ports that can go down, a log of requests, and faults applied to answers."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from hub_faults import FaultPlan
from hub_store import HubError

PIECE = 1 << 16


class Backend(Protocol):
    """What stands behind a site."""

    faults: FaultPlan
    released: threading.Event  # ends the waiting of silent and stalled answers


@dataclass
class Request:
    """One request as it came in."""

    method: str
    path: str
    has_authorization: bool
    range: str | None


class Site:
    """One listening port, which stays the same over down() and up()."""

    def __init__(self, backend: Backend, handler: type[BaseHTTPRequestHandler]) -> None:
        self.backend = backend
        self.handler = handler
        self.requests: list[Request] = []
        self._server: Server | None = None
        self._port = 0
        self.up()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def up(self) -> None:
        if self._server is not None:
            return
        self._server = Server(("127.0.0.1", self._port), self.handler)
        self._server.site = self
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def down(self) -> None:
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._server.cut()
        self._server = None


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    site: Site

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        self._open.discard(request)
        super().close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""

    def cut(self) -> None:
        """Close kept-alive connections too: their threads would go on answering."""
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # the client was faster
                continue


class Handler(BaseHTTPRequestHandler):
    """Reads a request, applies the fault that is due, and answers."""

    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle_any(self) -> None:
        site = self.server.site
        split = urlsplit(self.path)
        self.route, self.query = unquote(split.path), parse_qs(split.query)
        authorization = self.headers.get("Authorization")
        site.requests.append(Request(self.command, split.path, authorization is not None, self.headers.get("Range")))
        self.body = self._read_body()
        if len(self.body) < int(self.headers.get("Content-Length") or 0):  # of a client that was killed: no upload
            self.close_connection = True
            return
        self.fault = site.backend.faults.take(self.command, split.path)
        released = site.backend.released
        if self.fault.silent:
            released.wait()
        if self.fault.drop or self.fault.silent:
            self.close_connection = True
            return
        time.sleep(self.fault.delay)
        if self.fault.status is not None:
            self.reply(self.fault.status, b"", self.fault.headers)
            return
        try:
            self.respond(authorization)
        except HubError as error:
            self.reply_json({"error": str(error)}, error.status, error.headers)

    do_HEAD = do_GET = do_POST = do_PUT = do_DELETE = handle_any

    def respond(self, authorization: str | None) -> None:
        raise NotImplementedError

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def reply_json(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.reply(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def reply_file(self, data: bytes, headers: dict[str, str]) -> None:
        """Send a file, or the part of it that Range asks for."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not asked:
            self.reply(200, data, {"Accept-Ranges": "bytes", **headers})
            return
        first, last = int(asked[1]), int(asked[2] or len(data) - 1)
        if first >= len(data):
            raise HubError(416, headers={"Content-Range": f"bytes */{len(data)}"})
        part = {"Content-Range": f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}"}
        self.reply(206, data[first : last + 1], headers | part)

    def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        body = self.fault.change(body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.fault.truncate_at if self.fault.truncate_at is not None else self.fault.stall_at
        if cut is not None and cut < len(body):
            self.wfile.write(body[:cut])
            self.close_connection = True
            if self.fault.stall_at is not None:
                self.server.site.backend.released.wait()
            return
        for start in range(0, len(body), PIECE) if self.fault.pace else ():
            time.sleep(self.fault.pace)
            self.wfile.write(body[start : start + PIECE])
        if not self.fault.pace:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet: `requests` has it all."""
