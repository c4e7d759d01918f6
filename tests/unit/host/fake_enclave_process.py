# SPDX-License-Identifier: Apache-2.0
"""An enclave process for supervisor tests: reads ./enclave.toml, serves readiness and a report.

Run as a script with one or two arguments: ``serve``, ``exit`` (ends at once), ``never`` (never becomes ready) or
``stubborn`` (ignores SIGTERM); then what its report calls the platform, ``simulated`` unless it is said.
"""

import json
import os
import signal
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit


class Handler(BaseHTTPRequestHandler):
    """Answers readiness and attestation; echoes what is posted."""

    mode = "serve"
    tee_type = "simulated"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/readyz":
            self.answer(200, {"ready": self.mode != "never", "key_ids": [1], "not_after": 1})
        elif path == "/v1/aci/attestation":
            environment = sorted(os.environ)
            facts = {"pid": os.getpid(), "cwd": str(Path.cwd()), "environment": environment}
            self.answer(200, {"attestation": {"tee_type": self.tee_type}, **facts})
        else:
            self.answer(404, {})

    def do_POST(self) -> None:
        # All of the chunked body: closing on unread bytes would reset the connection.
        while self.rfile.read(int(self.rfile.readline(), 16)):
            self.rfile.readline()
        self.rfile.readline()
        self.answer(200, {"pid": os.getpid()})

    def answer(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def main() -> None:
    """Serve as the one argument says."""
    mode = sys.argv[1]
    if mode == "exit":
        sys.exit("the fake enclave refuses to start")
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    config = tomllib.loads(Path("enclave.toml").read_text(encoding="utf-8"))
    Handler.mode = mode
    Handler.tee_type = sys.argv[2] if len(sys.argv) > 2 else Handler.tee_type
    HTTPServer((config["listen_host"], config["listen_port"]), Handler).serve_forever()


if __name__ == "__main__":
    main()
