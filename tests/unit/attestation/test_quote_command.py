# SPDX-License-Identifier: Apache-2.0
"""``adyton quote verify``: three exit statuses, the failing check by name, and nothing left unsaid."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from adyton.cli import main
from adyton_attestation.checks import CheckName
from adyton_attestation.policy import Identity, TdIdentity
from adyton_attestation.simulation.collateral import EndorsementSpec, build_endorsements
from adyton_attestation.simulation.pki import ROOT_NAME, create_pki, issue
from adyton_attestation.simulation.quoting import TdReportSpec, build_tdx_quote


def says(out: str, verdict: str, check: str) -> bool:
    """Whether a line of the report gives this verdict on this check."""
    return re.search(rf"(?im)^\s*\d+\s+{verdict}\s+{check}\b", out) is not None


class Desk:
    """Files of one case, and the command over them."""

    def __init__(self, lab: Any, directory: Path) -> None:
        self.lab = lab
        self.directory = directory
        self.write("quote", lab.quote())
        self.write("collateral", lab.collateral())
        self.write("root", lab.pki.root.pem().encode())
        self.write("policy", lab.policy().to_toml().encode())

    def write(self, name: str, data: bytes) -> None:
        """Replace one file."""
        (self.directory / name).write_bytes(data)

    def run(self, *more: str, root: bool = True, at: int | None = None) -> int:
        """Run the command; returns its exit status, also when the parser ends it."""
        line = ["quote", "verify", "--quote", str(self.directory / "quote")]
        line += ["--collateral", str(self.directory / "collateral"), "--at", str(at or self.lab.now_s)]
        line += ["--root", str(self.directory / "root")] if root else []
        try:
            return main([*line, *more])
        except SystemExit as end:
            return int(end.code or 0)


@pytest.fixture
def desk(lab: Any, tmp_path: Path) -> Desk:
    """Genuine files."""
    return Desk(lab, tmp_path)


def test_a_good_quote_is_accepted_and_what_was_not_checked_is_said(desk: Desk, capsys: Any) -> None:
    """Without a policy the comparison with reference values is skipped, in so many words, and simulation is named."""
    assert desk.run() == 0
    out = capsys.readouterr().out
    assert "NOT CHECKED: evidence-type, evaluation-number, platform, enclave-identity" in out
    assert "no reference values were given" in out
    assert "SIMULATED" in out
    assert "verdict: accepted" in out


def test_the_json_form_says_the_same(desk: Desk, capsys: Any) -> None:
    """Programs get every check, what was skipped, and which root vouched."""
    assert desk.run("--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["verdict"], result["simulated"]) == ("accepted", True)
    assert [check["name"] for check in result["checks"]] == [name.value for name in CheckName]
    assert "enclave-identity" in result["not_checked"]
    assert result["quote"]["mr_enclave"] == bytes(range(32)).hex()
    assert result["tcb_status"] == "UpToDate"


@pytest.mark.parametrize(
    "form",
    ["hex", "hex with lines", "0x", "padded", "base64", "base64 with lines", "base64 for addresses"],
)
def test_hexadecimal_base64_and_padded_quotes_are_read(desk: Desk, form: str) -> None:
    """The usual ways of storing a quote all work."""
    quote = desk.lab.quote()
    digits = quote.hex()
    desk.write("quote", {
        "hex": digits.encode() + b"\n",
        "hex with lines": "\n".join(digits[i : i + 64] for i in range(0, len(digits), 64)).upper().encode(),
        "0x": b"0x" + digits.encode(),
        "padded": quote + bytes(70),
        "base64": base64.b64encode(quote) + b"\n",
        "base64 with lines": base64.encodebytes(quote),
        "base64 for addresses": base64.urlsafe_b64encode(quote).rstrip(b"="),
    }[form])  # fmt: skip
    assert desk.run() == 0


@pytest.mark.parametrize(
    "form", ["indented", "reversed", "extra members", "escaped", "line ends", "capital digits"]
)
def test_collateral_is_read_however_its_json_is_written(desk: Desk, form: str) -> None:
    """White space, order, members of other services, escapes, line ends of PEM and case of digits change nothing."""
    document = json.loads(desk.lab.collateral())
    chains = [name for name in document if name.endswith("_chain")]
    digits = [name for name in document if name.endswith(("_signature", "_crl"))]
    desk.write("collateral", {
        "indented": json.dumps(document, indent=4).encode(),
        "reversed": json.dumps(dict(reversed(document.items()))).encode(),
        "extra members": json.dumps(document | {"version": 3, "tee_type": 0, "fetched": [1, {}]}).encode(),
        "escaped": "".join(f"\\u{ord(c):04x}" if c == "A" else c for c in json.dumps(document)).encode(),
        "line ends": json.dumps(document | {n: document[n].replace("\n", "\r\n") for n in chains}).encode(),
        "capital digits": json.dumps(document | {n: document[n].upper() for n in digits}).encode(),
    }[form])  # fmt: skip
    assert desk.run() == 0


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("out of date", "tcb-status"),
        ("advisory", "advisories"),
        ("flipped report", "quote-signatures"),
        ("flipped version", "quote-format"),
        ("truncated", "quote-format"),
        ("trailing bytes", "quote-length"),
        ("debug", "debug-disabled"),
        ("expired", "endorsements-current"),
        ("not yet", "endorsements-current"),
        ("revoked", "not-revoked"),
        ("foreign root", "signing-chains"),
        ("Intel's root", "signing-chains"),
        ("edited TCB info", "endorsement-signatures"),
        ("damaged CRL", "endorsements-format"),
        ("real names below a simulated root", "signing-chains"),
    ],
)
def test_refusals_end_with_status_one_and_name_the_check(
    desk: Desk, capsys: Any, fault: str, check: str
) -> None:
    """Whatever is wrong with evidence or endorsements is a refusal with a name, in both forms of output."""
    lab, quote = desk.lab, desk.lab.quote()
    document = json.loads(lab.collateral())
    at, root = None, True
    match fault:
        case "out of date":
            desk.write("collateral", lab.collateral(tcb_status="OutOfDate"))
        case "advisory":
            desk.write(
                "collateral", lab.collateral(tcb_status="SWHardeningNeeded", advisory_ids=("INTEL-SA-00289",))
            )
        case "flipped report":
            desk.write("quote", quote[:200] + bytes([quote[200] ^ 1]) + quote[201:])
        case "flipped version":
            desk.write("quote", bytes([quote[0] ^ 4]) + quote[1:])
        case "truncated":
            desk.write("quote", quote[:700])
        case "trailing bytes":
            desk.write("quote", quote + b"\x01")
        case "debug":
            desk.write("quote", lab.quote(attributes=bytes.fromhex("0700000000000000e700000000000000")))
        case "expired":
            at = lab.now_s + 31 * 86400
        case "not yet":
            at = lab.now_s - 7200
        case "revoked":
            desk.write("collateral", lab.collateral(revoked_pck=True))
        case "foreign root":
            desk.write("root", create_pki(lab.now_s).root.pem().encode())
        case "Intel's root":
            root = False
        case "edited TCB info":
            document["tcb_info"] = document["tcb_info"].replace('"OutOfDate"', '"UpToDate"')
            desk.write("collateral", json.dumps(document).encode())
        case "damaged CRL":
            desk.write("collateral", json.dumps(document | {"pck_crl": "3081"}).encode())
        case "real names below a simulated root":
            signer = issue("Intel SGX TCB Signing", issuer=lab.pki.root, now_s=lab.now_s, ca=False)
            spec = EndorsementSpec(issued_s=lab.now_s - 3600)
            chain = signer.pem() + lab.pki.root.pem()
            desk.write("collateral", build_endorsements(lab.pki, spec, tcb_signer=(signer, chain)))
    assert desk.run(root=root, at=at) == 1
    out = capsys.readouterr().out
    assert says(out, "fail", check)
    assert "verdict: refused" in out
    assert desk.run("--json", root=root, at=at) == 1
    refusal = json.loads(capsys.readouterr().out)
    assert (refusal["verdict"], refusal["check"]) == ("refused", check)


@pytest.mark.parametrize(
    "fault",
    ["no quote", "no quote file", "empty quote", "no collateral", "collateral not JSON", "collateral of a list",
     "no root", "root is a leaf", "two roots", "no policy", "policy not a policy", "time"],
)  # fmt: skip
def test_unusable_input_ends_with_status_two(desk: Desk, capsys: Any, fault: str) -> None:
    """What is not even evidence, collateral, root, policy or time is the caller's error, and said so."""
    more: list[str] = []
    match fault:
        case "no quote":
            desk.write(
                "quote", b"Dear Sir or Madam, this is no quote, however long it may be; it is a letter." * 9
            )
        case "no quote file":
            (desk.directory / "quote").unlink()
        case "empty quote":
            desk.write("quote", b"")
        case "no collateral":
            desk.write("collateral", b"{}")
        case "collateral not JSON":
            desk.write("collateral", b"\xff{")
        case "collateral of a list":
            desk.write("collateral", b"[]")
        case "no root":
            desk.write("root", b"")
        case "root is a leaf":
            desk.write("root", desk.lab.pki.pck.pem().encode())
        case "two roots":
            desk.write("root", desk.lab.pki.root.pem().encode() * 2)
        case "no policy":
            more = ["--policy", str(desk.directory / "nowhere")]
        case "policy not a policy":
            desk.write("policy", b"version = 2")
            more = ["--policy", str(desk.directory / "policy")]
        case "time":
            more = ["--at", "yesterday"]
    assert desk.run(*more) == 2
    assert capsys.readouterr().err


def test_with_a_policy_everything_in_it_applies(desk: Desk, capsys: Any) -> None:
    """A policy's reference values decide; what it does not name is refused."""
    policy = ["--policy", str(desk.directory / "policy")]
    assert desk.run(*policy) == 0
    out = capsys.readouterr().out
    assert says(out, "pass", "enclave-identity")
    assert "NOT CHECKED: evidence-type, challenge, key-binding, keys-current, configuration, models" in out
    desk.write("quote", desk.lab.quote(mr_enclave=bytes(32)))
    assert desk.run(*policy) == 1
    assert says(capsys.readouterr().out, "fail", "enclave-identity")
    desk.write("policy", b"version = 2\nname = 'empty'\n")
    desk.write("quote", desk.lab.quote())
    assert desk.run(*policy) == 1
    assert says(capsys.readouterr().out, "fail", "platform")


@pytest.mark.parametrize("version", [4, 5])
def test_tdx_quotes_are_appraised_too(desk: Desk, capsys: Any, version: int) -> None:
    """Trust domains pass the same checks; debug and foreign ownership do not."""
    desk.write("collateral", desk.lab.collateral(tee="tdx"))
    td = TdReportSpec(mr_td=b"\x01" * 48, report_data=bytes(64))
    desk.write("quote", build_tdx_quote(desk.lab.pki, td, version=version))
    assert desk.run("--json") == 0
    assert json.loads(capsys.readouterr().out)["quote"]["tee"] == "tdx"
    zeros = bytes(48)
    identity = Identity(tds=frozenset({TdIdentity(mr_td=b"\x01" * 48, rt_mrs=(zeros, zeros, zeros, zeros))}))
    desk.write("policy", desk.lab.policy(identity=identity).to_toml().encode())
    with_policy = ["--policy", str(desk.directory / "policy")]
    assert desk.run(*with_policy) == 0
    for change, check in (
        ({"mr_td": b"\x02" * 48}, "enclave-identity"),
        ({"rt_mrs": (b"\x01" * 48, bytes(48), bytes(48), bytes(48))}, "enclave-identity"),
        ({"mr_config_id": b"\x01" * 48}, "key-separation"),
        ({"mr_owner": b"\x01" * 48}, "key-separation"),
        ({"td_attributes": bytes.fromhex("0100001000000000")}, "debug-disabled"),
        ({"td_attributes": bytes(8)}, "dcap-verification"),
    ):
        fields = {"mr_td": b"\x01" * 48, "report_data": bytes(64)} | change
        desk.write("quote", build_tdx_quote(desk.lab.pki, TdReportSpec(**fields), version=version))
        capsys.readouterr()
        assert desk.run("--json", *with_policy) == 1
        assert json.loads(capsys.readouterr().out)["check"] == check


def test_a_root_of_another_name_demands_real_names(desk: Desk, capsys: Any) -> None:
    """A caller's own root may anchor a copy of Intel's names, and then simulated names are refused below it."""
    assert ROOT_NAME.startswith("Simulated ")
    root = issue("House Root CA", issuer=None, now_s=desk.lab.now_s, ca=True)
    desk.write("root", root.pem().encode())
    assert desk.run("--json") == 1
    assert json.loads(capsys.readouterr().out)["check"] == "signing-chains"
