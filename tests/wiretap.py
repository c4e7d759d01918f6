# SPDX-License-Identifier: Apache-2.0
"""A loopback wire between a client and a server that a test can record, cut and rewrite.

``Wiretap`` forwards TCP byte for byte and keeps what passed. ``tamper`` also understands just enough HTTP to
hand the sealed body of each gateway answer to a function, which returns the body to deliver instead.
"""

import contextlib
import http.client
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from adyton_protocol.media import GATEWAY_PATH


@dataclass(slots=True)
class Wiretap:
    """What passed over the wire so far."""

    url: str
    upstream: bytearray = field(default_factory=bytearray)
    downstream: bytearray = field(default_factory=bytearray)

    @property
    def everything(self) -> bytes:
        """Both directions, one after the other."""
        return bytes(self.upstream) + b"\n" + bytes(self.downstream)


def _pump(source: socket.socket, sink: socket.socket, record: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            record += data
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def wiretap(url: str) -> Iterator[Wiretap]:
    """Listen on a free loopback port and forward every connection to ``url``, recording all bytes."""
    target = urlsplit(url)
    listener = socket.create_server(("127.0.0.1", 0))
    tap = Wiretap(url=f"http://127.0.0.1:{listener.getsockname()[1]}")
    connections: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection((target.hostname or "", target.port or 80))
            except OSError:
                return
            connections.extend((near, far))
            threading.Thread(target=_pump, args=(near, far, tap.upstream), daemon=True).start()
            threading.Thread(target=_pump, args=(far, near, tap.downstream), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield tap
    finally:
        # shutdown() wakes the blocked accept(); close() alone does not.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


@contextlib.contextmanager
def tamper(url: str, rewrite: Callable[[bytes], bytes]) -> Iterator[str]:
    """Forward HTTP to ``url``, replacing the body of every successful gateway answer by ``rewrite(body)``.

    Whole bodies are buffered: what matters to these tests is which bytes arrive, not when.
    """
    target = urlsplit(url)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _forward(self, body: bytes | None) -> None:
            connection = http.client.HTTPConnection(target.hostname or "", target.port or 80, timeout=60)
            headers = {"content-type": self.headers.get("content-type", "")} if body is not None else {}
            connection.request(self.command, self.path, body=body, headers=headers)
            answer = connection.getresponse()
            data = answer.read()
            if self.command == "POST" and self.path == GATEWAY_PATH and answer.status == 200:
                data = rewrite(data)
            self.send_response(answer.status)
            self.send_header("content-type", answer.headers.get("content-type", ""))
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(data)
            connection.close()

        def do_GET(self) -> None:
            self._forward(None)

        def do_POST(self) -> None:
            if "content-length" in self.headers:
                body = self.rfile.read(int(self.headers["content-length"]))
            else:
                body = b""
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            self._forward(body)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def chunks(body: bytes, nonce_bytes: int) -> tuple[bytes, list[bytes]]:
    """Split a chunked OHTTP response into its nonce and its framed chunks, the final one last."""
    at, pieces = nonce_bytes, []
    while at < len(body):
        width = 1 << (body[at] >> 6)
        length = int.from_bytes(body[at : at + width], "big") & ((1 << (8 * width - 2)) - 1)
        end = len(body) if length == 0 else at + width + length
        pieces.append(body[at:end])
        at = end
    return body[:nonce_bytes], pieces
