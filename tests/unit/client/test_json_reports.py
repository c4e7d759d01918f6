# SPDX-License-Identifier: Apache-2.0
"""What programs read: the schemas, the page and the commands say the same."""

import json
from pathlib import Path
from typing import Any

import jsonschema_rs  # comes with schemathesis, and is pinned with it
import pytest
import reports_page
from command_line import Run
from memory_appliance import QUESTION, pki, policy

from adyton.edge import wall_clock_s
from adyton_attestation.simulation.collateral import EndorsementSpec, build_endorsements
from adyton_attestation.simulation.quoting import (
    EnclaveReportSpec,
    TdReportSpec,
    build_sgx_quote,
    build_tdx_quote,
)


def closed(schema: Any) -> Any:
    """The same schema, in which nothing may stand that it does not name: a test knows this version's members."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(value) for name, value in schema.items()}
    return made | {"additionalProperties": False} if "properties" in made and "required" in made else made


def check(name: str, out: str) -> dict[str, Any]:
    """Compare what a command printed with its schema, in both directions."""
    document: dict[str, Any] = json.loads(out)
    jsonschema_rs.Draft202012Validator(closed(reports_page.read_schema(name))).validate(document)
    return document


def test_the_page_describes_every_member() -> None:
    """docs/reports.md holds exactly the tables that the schemas give."""
    page = reports_page.PAGE.read_text("utf-8")
    assert reports_page.rendered(page) == page
    for name in reports_page.SCHEMAS:
        assert f"<!-- {name} -->" in page
        jsonschema_rs.Draft202012Validator(reports_page.read_schema(name))


def test_verify_prints_what_its_schema_says(run: Run, where: tuple[str, ...], tmp_path: Path) -> None:
    """Accepted and refused."""
    assert check("verify", run("verify", *where, "--json").out)["verdict"] == "accepted"
    path = tmp_path / "policy.toml"
    path.write_text(policy().to_toml())
    refused = check("verify", run("verify", *where[:2], "--policy", path, "--json").out)
    assert refused["verdict"] == "refused"
    assert refused["check"] == "evidence-type"


def test_receipt_commands_print_what_their_schemas_say(
    run: Run, where: tuple[str, ...], tmp_path: Path
) -> None:
    """Valid, invalid, damaged and without a report; with and without a policy."""
    kept = tmp_path / "kept"
    kept.mkdir()
    receipt, report = kept / "1.receipt.json", kept / "1.report.json"
    run("ask", QUESTION, *where, "--save-receipt", receipt, "--save-report", report)
    for trust in ((), where[2:]):
        verified = run("receipt", "verify", receipt, "--report", report, "--json", *trust).out
        assert check("receipt-verify", verified)["verdict"] == "valid"
        audited = run("receipt", "audit", kept, "--json", "--at", "2000000000", *trust).out
        assert check("receipt-audit", audited)["verdict"] == "valid"
    (kept / "torn.json").write_text("{")
    (kept / "other.json").write_text("{}")
    report.rename(kept / "report.txt")
    document = check("receipt-audit", run("receipt", "audit", kept, "--json").out)
    assert {item["outcome"] for item in document["files"]} == {"no-report", "damaged"}
    torn = run(
        "receipt", "verify", receipt, "--report", kept / "report.txt", "--json", "--policy", kept / "none"
    )
    assert "error" in json.loads(torn.out)


@pytest.mark.parametrize("tee", ["sgx", "tdx"])
def test_quote_verify_prints_what_its_schema_says(run: Run, tmp_path: Path, tee: str) -> None:
    """Accepted and refused, for both technologies."""
    if tee == "sgx":
        quote = build_sgx_quote(pki(), EnclaveReportSpec(mr_enclave=bytes(32), report_data=bytes(64)))
    else:
        quote = build_tdx_quote(pki(), TdReportSpec(mr_td=bytes(48), report_data=bytes(64)))
    now_s = wall_clock_s()
    spec = EndorsementSpec(issued_s=now_s - 60, tee="tdx" if tee == "tdx" else "sgx")
    files = {"quote": quote, "collateral": build_endorsements(pki(), spec), "root": pki().root.pem().encode()}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    options = [word for name in files for word in (f"--{name}", tmp_path / name)]
    accepted = check("quote-verify", run("quote", "verify", *options, "--at", now_s, "--json").out)
    assert accepted["verdict"] == "accepted"
    assert accepted["quote"]["tee"] == tee
    refused = check("quote-verify", run("quote", "verify", *options, "--at", 2_000_000_000, "--json").out)
    assert refused["check"] == "endorsements-current"
