# SPDX-License-Identifier: Apache-2.0
"""What an interpreter has loaded after it has imported all of the host."""

import json
import subprocess
import sys
from pathlib import Path

import adyton_host

ALLOWED_PROTOCOL = {"adyton_protocol", "adyton_protocol.media", "adyton_protocol.errors"}
FORBIDDEN = {
    *("adyton", "adyton_attestation", "adyton_enclave", "adyton_models"),
    *("cryptography", "nacl", "dcap_qvl", "llama_cpp", "torch"),
}


def test_the_host_loads_nothing_that_could_open_seal_or_appraise() -> None:
    """No module of the host brings in sealing code, a verifier, an enclave or a cryptographic library."""
    package = Path(adyton_host.__file__ or "").parent
    names = [
        ".".join(path.relative_to(package.parent).with_suffix("").parts)
        for path in sorted(package.rglob("*.py"))
        if path.stem != "__init__"
    ]
    program = (
        "import importlib, json, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert set(names) <= set(loaded)
    assert {name for name in loaded if name.split(".")[0] == "adyton_protocol"} <= ALLOWED_PROTOCOL
    assert [name for name in loaded if name.split(".")[0] in FORBIDDEN] == []
