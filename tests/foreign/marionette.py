# SPDX-License-Identifier: Apache-2.0
"""Drive headless Firefox over Marionette, as far as sending one oblivious HTTP request needs.

Marionette frames are ``<decimal length>:<JSON>`` on loopback TCP. Firefox's own OHTTP client (NSS, Mozilla's
``ohttp`` crate) does the encapsulation; none of our code takes part.
"""

import base64
import contextlib
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

SEND_OBLIVIOUSLY: Final = """
const [relay, target, config, body, resolve] = arguments;
try {
  const service = Cc["@mozilla.org/network/oblivious-http-service;1"].getService(Ci.nsIObliviousHttpService);
  const bytes = Uint8Array.from(atob(config), c => c.charCodeAt(0));
  const channel = service.newChannel(Services.io.newURI(relay), Services.io.newURI(target), bytes);
  const upload = Cc["@mozilla.org/io/string-input-stream;1"].createInstance(Ci.nsIStringInputStream);
  upload.setByteStringData(body);
  channel.QueryInterface(Ci.nsIHttpChannel);
  channel.QueryInterface(Ci.nsIUploadChannel2);
  channel.explicitSetUploadStream(upload, "application/json", -1, "POST", false);
  const pieces = [];
  channel.asyncOpen({
    onStartRequest() {},
    onDataAvailable(request, stream, offset, count) {
      const binary = Cc["@mozilla.org/binaryinputstream;1"].createInstance(Ci.nsIBinaryInputStream);
      binary.setInputStream(stream);
      pieces.push(binary.readBytes(count));
    },
    onStopRequest(request, status) {
      let code = null;
      try { code = channel.responseStatus; } catch (error) { code = String(error); }
      resolve({ networkStatus: status, status: code, body: pieces.join("") });
    },
    QueryInterface: ChromeUtils.generateQI(["nsIStreamListener", "nsIRequestObserver"]),
  });
} catch (error) {
  resolve({ error: String(error) });
}
"""


def executable() -> str | None:
    """Return the path of Firefox ESR, or None where it is not installed."""
    return shutil.which("firefox-esr")


class Marionette:
    """One Marionette session in chrome context."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""
        self._id = 0
        self._receive()

    def _receive(self) -> Any:
        while b":" not in self._buffer:
            self._buffer += self._read()
        length, _, rest = self._buffer.partition(b":")
        while len(rest) < int(length):
            rest += self._read()
        self._buffer = rest[int(length) :]
        return json.loads(rest[: int(length)])

    def _read(self) -> bytes:
        data = self._connection.recv(65536)
        if not data:
            raise ConnectionError("Firefox closed the Marionette connection")
        return data

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def command(self, name: str, **parameters: object) -> Any:
        """Send one command and return its result.

        Raises:
            RuntimeError: Firefox answered with an error.
        """
        self._id += 1
        message = json.dumps([0, self._id, name, parameters]).encode()
        self._connection.sendall(str(len(message)).encode() + b":" + message)
        _, _, error, result = self._receive()
        if error is not None:
            raise RuntimeError(f"{name}: {error.get('message')}")
        return result

    def send_obliviously(self, *, relay: str, target: str, config: bytes, body: str) -> dict[str, Any]:
        """POST ``body`` to ``target`` through ``relay``, sealed to one un-prefixed key configuration."""
        result = self.command(
            "WebDriver:ExecuteAsyncScript",
            script=SEND_OBLIVIOUSLY,
            args=[relay, target, base64.b64encode(config).decode(), body],
            scriptTimeout=60_000,
        )
        value: dict[str, Any] = result["value"]
        return value


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def firefox(profile: Path) -> Iterator[Marionette]:
    """Start headless Firefox with an empty profile; yield a session in chrome context."""
    port = _free_port()
    (profile / "user.js").write_text(
        f'user_pref("marionette.port", {port});\n'
        'user_pref("network.proxy.type", 0);\n'
        'user_pref("app.update.enabled", false);\n'
        'user_pref("datareporting.policy.dataSubmissionEnabled", false);\n'
        'user_pref("network.captive-portal-service.enabled", false);\n'
        'user_pref("network.connectivity-service.enabled", false);\n'
        'user_pref("browser.safebrowsing.update.enabled", false);\n'
        'user_pref("network.dns.disablePrefetch", true);\n'
    )
    command = [
        str(executable()), "--headless", "--no-remote", "--marionette", "--remote-allow-system-access",
        "--profile", str(profile),
    ]  # fmt: skip
    with (
        (profile / "firefox.log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        session = None
        try:
            session = _session(process, port)
            yield session
        finally:
            if session is not None:
                session.close()
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def _session(process: subprocess.Popen[bytes], port: int) -> Marionette:
    """Connect as soon as Firefox listens; each refused attempt waits for the process a moment."""
    for _ in range(300):
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=120)
        except ConnectionRefusedError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.2)
                break
            continue
        session = Marionette(connection)
        session.command("WebDriver:NewSession", capabilities={})
        session.command("Marionette:SetContext", value="chrome")
        return session
    raise ConnectionError("Firefox did not open its Marionette port")
