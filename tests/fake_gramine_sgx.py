# SPDX-License-Identifier: Apache-2.0
"""A ``gramine-sgx`` without SGX: the same arguments, the same files, the same refusals; no protection.

``fake_gramine_sgx.py MODE APPLICATION``

As the real one, it takes the path of an application, wants ``APPLICATION.manifest.sgx`` and ``APPLICATION.sig``, reads
paths of the manifest relative to its working directory, holds every trusted file to its hash, and becomes the program.
MODE is what the fake enclave process takes (``serve sgx``), or ``simulated``: then it becomes the enclave's own code
with the simulated attester, on the platform that ``PLATFORM`` beside the image names.
"""

import hashlib
import os
import sys
import tempfile
import tomllib
from pathlib import Path

FAKE_ENCLAVE = Path(__file__).parent / "unit" / "host" / "fake_enclave_process.py"


def main() -> None:
    """Become the enclave."""
    mode, *arguments = sys.argv[1:]
    application = arguments[0] if arguments else sys.exit("Usage: gramine-sgx [<application>] <args>...")
    if len(arguments) > 1:
        sys.exit("command-line arguments are not allowed by this manifest")
    manifest_path = Path(application + ".manifest.sgx")
    if not manifest_path.exists() or not Path(application + ".sig").exists():
        sys.exit(f"Invalid application path specified ({manifest_path} does not exist).")
    manifest = tomllib.loads(manifest_path.read_text(encoding="utf-8"))
    for entry in manifest["sgx"]["trusted_files"]:
        path = Path(entry["uri"].removeprefix("file:"))
        if hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            sys.exit(f"hash of trusted file {path} does not match with the reference hash in manifest")
    config = Path("root/adyton/enclave.toml").read_text(encoding="utf-8")
    enclave_dir = Path(tempfile.mkdtemp(prefix="fake-enclave-"))
    if mode == "simulated":
        platform = Path("PLATFORM").read_text(encoding="utf-8").strip()
        config = config.replace(
            'attester = "gramine"', f'attester = "simulated"\nsimulation_platform = "{platform}"'
        )
        program = [sys.executable, "-I", "-m", "adyton_enclave"]
    else:
        program = [sys.executable, "-I", str(FAKE_ENCLAVE), *mode.split()]
    (enclave_dir / "enclave.toml").write_text(config, encoding="utf-8")
    os.chdir(enclave_dir)
    os.execv(program[0], program)  # noqa: S606 -- becoming it is the point


if __name__ == "__main__":
    main()
