# SPDX-License-Identifier: Apache-2.0
"""Can the platform make quotes? The AESM service, its library for certificates, and where that gets them.

Gramine asks AESM for every quote (``/var/run/aesmd/aesm.socket``, or an abstract socket of older versions). AESM's
quoting enclave needs the certificate of this platform's key (PCK), which its provider library fetches from the PCCS
that ``/etc/sgx_default_qcnl.conf`` names, and keeps for a week. Only a connection is opened to that address, and
nothing sent.
"""

import json
import re
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from adyton_host.doctor.finding import Finding, failed, passed, skipped, warned
from adyton_host.doctor.machine import Machine

AESM_SOCKET: Final = "/var/run/aesmd/aesm.socket"
QCNL_CONF: Final = "/etc/sgx_default_qcnl.conf"
_LEGACY_SOCKET: Final = "\0sgx_aesm_socket_base"
_PROVIDER: Final = "/usr/lib/x86_64-linux-gnu/libdcap_quoteprov.so*"
_TIMEOUT_S: Final = 3.0
_COMMENT: Final = re.compile(r"^\s*(//|#).*$", re.MULTILINE)
_OLD_MEMBER: Final = re.compile(r"^\s*([A-Z_]+)\s*=\s*(.*?)\s*$", re.MULTILINE)
_DEFAULT_URL: Final = "https://localhost:8081/sgx/certification/v4/"
_INTEL: Final = "api.trustedservices.intel.com"
_INSTALL: Final = "sudo apt install sgx-aesm-service libsgx-aesm-ecdsa-plugin libsgx-aesm-quote-ex-plugin"
_PORTS: Final = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True, kw_only=True)
class Qcnl:
    """What ``sgx_default_qcnl.conf`` says.

    Attributes:
        url: Where certificates come from.
        checks_tls: Whether the certificate of that server is checked.
    """

    url: str
    checks_tls: bool


class _NotAConfiguration(ValueError):
    """Not in one of the two forms."""


def parse_qcnl(text: str) -> Qcnl:
    """Read the file: JSON with comments since DCAP 1.12, ``KEY=value`` lines before.

    Raises:
        ValueError: It is neither, or a member has the wrong type.
    """
    bare = _COMMENT.sub("", text)
    if bare.lstrip().startswith("{"):
        document = json.loads(bare)
        url = document.get("pccs_url", _DEFAULT_URL)
        checks_tls = document.get("use_secure_cert", True)
    else:
        members = dict(_OLD_MEMBER.findall(bare))
        if not members and bare.strip():
            raise _NotAConfiguration("neither JSON nor KEY=value")
        url = members.get("PCCS_URL", _DEFAULT_URL)
        checks_tls = members.get("USE_SECURE_CERT", "TRUE").upper() != "FALSE"
    if not isinstance(url, str) or not isinstance(checks_tls, bool):
        raise _NotAConfiguration("pccs_url is no text, or use_secure_cert neither true nor false")
    return Qcnl(url=url, checks_tls=checks_tls)


def examine_quoting(machine: Machine) -> tuple[Finding, ...]:
    """Look at all of it."""
    conf, qcnl = _qcnl(machine)
    return (
        _aesm(machine),
        _provider(machine),
        conf,
        _pccs(qcnl) if qcnl else skipped("pccs", "no usable address"),
    )


def _aesm(machine: Machine) -> Finding:
    name = "aesmd"
    if _answers(str(machine.path(AESM_SOCKET))):
        return passed(name, f"answers on {AESM_SOCKET}")
    if machine.exists(AESM_SOCKET):
        return failed(
            name, f"{AESM_SOCKET} is there and nobody answers, or this user may not connect",
            "sudo systemctl restart aesmd; sudo journalctl -u aesmd -n 20",
        )  # fmt: skip
    if machine.root == Path("/") and _answers(_LEGACY_SOCKET):
        return passed(name, "answers on its abstract socket")
    if machine.exists("/opt/intel/sgx-aesm-service"):
        return failed(name, "installed, and not running", "sudo systemctl enable --now aesmd")
    return failed(
        name,
        "not installed; Gramine asks it for every quote",
        f"{_INSTALL}; sudo systemctl enable --now aesmd",
    )


def _answers(address: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        trial.settimeout(_TIMEOUT_S)
        try:
            trial.connect(address)
        except OSError:
            return False
        return True


def _provider(machine: Machine) -> Finding:
    name = "quote provider"
    if machine.matching(_PROVIDER):
        return passed(name, "the provider library for platform certificates is installed")
    return failed(
        name,
        "no libdcap_quoteprov.so: AESM cannot get this platform's certificate",
        "sudo apt install libsgx-dcap-default-qpl",
    )


def _qcnl(machine: Machine) -> tuple[Finding, Qcnl | None]:
    name, text = "qcnl", machine.read(QCNL_CONF)
    if text is None:
        return failed(name, f"no {QCNL_CONF}, which says where certificates come from",
                      "sudo apt install libsgx-dcap-default-qpl"), None  # fmt: skip
    try:
        qcnl = parse_qcnl(text)
    except (ValueError, RecursionError):
        return failed(name, f"{QCNL_CONF} is not what the provider library can read",
                      "sudo apt install --reinstall -o Dpkg::Options::=--force-confmiss libsgx-dcap-default-qpl, "
                      "then set pccs_url"), None  # fmt: skip
    host = urlsplit(qcnl.url).hostname or ""
    if not qcnl.checks_tls and host not in {"localhost", "127.0.0.1", "::1"}:
        return (
            warned(name, f"{qcnl.url}, whose certificate is not checked (use_secure_cert)",
                   "give the PCCS a certificate that this machine trusts, and set use_secure_cert to true"),
            qcnl,
        )  # fmt: skip
    return passed(name, qcnl.url), qcnl


def _pccs(qcnl: Qcnl) -> Finding:
    name, parts = "pccs", urlsplit(qcnl.url)
    try:
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        port = 0
    if not parts.hostname or not port:
        return failed(name, f"pccs_url of {QCNL_CONF} is no address", f"set pccs_url in {QCNL_CONF}")
    where = f"{parts.hostname} port {port}"
    try:
        with socket.create_connection((parts.hostname, port), timeout=_TIMEOUT_S) as connection:
            if parts.scheme == "https":
                with _tls(checks=qcnl.checks_tls).wrap_socket(
                    connection, server_hostname=parts.hostname
                ) as secured:
                    return passed(name, f"{where} answers ({secured.version()}; nothing was sent)")
    except ssl.SSLCertVerificationError:
        return warned(name, f"{where} shows a certificate that this machine does not trust",
                      "install the certificate's authority (/usr/local/share/ca-certificates, update-ca-certificates), "
                      "or for a PCCS on this machine alone set use_secure_cert to false")  # fmt: skip
    except OSError as error:
        return _unreachable(name, where, parts.hostname, type(error).__name__)
    return passed(name, f"{where} answers (nothing was sent)")


def _unreachable(name: str, where: str, host: str, reason: str) -> Finding:
    """Not a reason to start nothing: certificates are kept for a week, and an outage should not make another one."""
    if host in {"localhost", "127.0.0.1", "::1"}:
        fix = (
            "sudo systemctl restart pccs; sudo journalctl -u pccs -n 20 (or name another PCCS in "
            + QCNL_CONF
            + ")"
        )
    elif host == _INTEL:
        fix = "let this machine reach Intel, or put a PCCS between; without either, see the guide on air gaps"
    else:
        fix = (
            "ask whoever runs it; until then quotes go on for as long as the kept certificate lasts (a week)"
        )
    return warned(name, f"{where} cannot be reached ({reason})", fix)


def _tls(*, checks: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not checks:
        # As the provider library itself does with use_secure_cert = false. Nothing is sent, and nothing believed.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
