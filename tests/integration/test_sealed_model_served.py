# SPDX-License-Identifier: Apache-2.0
"""A sealed model through the whole appliance: sealed, served, waited for, released, asked; and never in the clear."""

import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest

import memory
from adyton_models.catalog import Catalog, read_catalog, render_catalog
from adyton_models.key_file import read_key_file, write_key_file
from adyton_protocol.sealed_model import KEY_BYTES, ModelKey
from appliance import Appliance, running
from wiretap import wiretap

ROOT = Path(__file__).resolve().parents[2]
PROBLEM = json.loads((ROOT / "docs" / "examples" / "demo_problem.json").read_text())
TOOL = str(Path(sys.executable).parent / "adyton-models")
WINDOW_BYTES = 48


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Who owns the model, on a machine of their own: the clear file and the key stay here."""

    directory: Path
    name: str
    clear: Path
    key: Path

    def tool(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run adyton-models."""
        return subprocess.run([TOOL, *words], capture_output=True, text=True, check=check, timeout=240)

    def release(self, appliance: Appliance, *words: str, url: str | None = None) -> dict[str, object]:
        """Release the key, or another one; what the tool prints."""
        done = self.tool(
            "release-key", self.name, "--key", str(self.key), "--url", url or appliance.url, "--simulated",
            "--simulation-dir", str(appliance.simulation_dir), "--json", *words, check=False,
        )  # fmt: skip
        printed: dict[str, object] = json.loads(done.stdout or "{}")
        return {**printed, "status": done.returncode, "stderr": done.stderr}


def _copy_catalog(to: Path) -> None:
    """The repository's catalog without the scorer, whose weights are the generator's in the clear."""
    catalog = read_catalog(ROOT / "models" / "catalog.toml")
    generator = dataclasses.replace(catalog.entry(None), scorer="")
    to.write_text(render_catalog(Catalog(default=catalog.default, models=(generator,))))


@contextlib.contextmanager
def sealed_appliance(tmp_path: Path) -> Iterator[tuple[Owner, Appliance]]:
    """The shipped model, sealed under a fresh key; only the sealed file is on the machine that serves."""
    at_home, served = tmp_path / "owner", tmp_path / "served"
    at_home.mkdir()
    served.mkdir()
    catalog = at_home / "catalog.toml"
    _copy_catalog(catalog)
    entry = json.loads(
        subprocess.run([TOOL, "list", "--json"], capture_output=True, text=True, check=True).stdout
    )[0]
    clear = at_home / str(entry["file"])
    clear.parent.mkdir()
    shutil.copy(ROOT / "models" / str(entry["file"]), clear)
    owner = Owner(directory=at_home, name=str(entry["name"]), clear=clear, key=at_home / "model.key")
    owner.tool(
        "seal", owner.name, "--key-out", str(owner.key), "--out", str(served / "model.sealed"), "--register",
        owner.name, "--model-version", "3", "--catalog", str(catalog),
    )  # fmt: skip
    text = catalog.read_text()
    (served / "catalog.toml").write_text(text.replace(str(served / "model.sealed"), "model.sealed"))
    with running(served, "--catalog", str(served / "catalog.toml")) as appliance:
        yield owner, appliance


def ask(appliance: Appliance, url: str | None = None) -> str:
    """A sealed question through the unmodified SDK."""
    from adyton import Client  # noqa: PLC0415 - after the appliance made its simulation

    with Client(url or appliance.url, simulation=appliance.simulation()) as client:
        answer = client.openai().chat.completions.create(
            model="default",
            messages=[{"role": "user", "content": PROBLEM["question"]}],
            max_tokens=120,
            temperature=0,
        )
    return answer.choices[0].message.content or ""


def ready(appliance: Appliance) -> tuple[int, list[str]]:
    """Status of /readyz, and whose keys are missing."""
    answer = httpx.get(f"{appliance.url}/readyz")
    return answer.status_code, [
        name for each in answer.json()["enclaves"] for name in each["waiting_for_keys"]
    ]


def test_a_sealed_model_serves_after_its_key_was_released_and_is_never_in_the_clear(tmp_path: Path) -> None:
    """Before: typed refusals. After: the same answers as ever. Key and weights: in the enclave alone."""
    with sealed_appliance(tmp_path) as (owner, appliance):
        assert ready(appliance) == (503, [owner.name])
        with pytest.raises(openai.InternalServerError) as refused:
            ask(appliance)
        assert refused.value.status_code == 503
        assert "model_key_missing" in str(refused.value.code)

        # A wrong key: one of another model under the right name.
        wrong = owner.directory / "wrong.key"
        right = read_key_file(owner.key)
        write_key_file(
            wrong, type(right)(key=ModelKey(secrets.token_bytes(KEY_BYTES)), models=right.models), new=True
        )
        answer = owner.release(appliance, "--key", str(wrong))
        assert (answer["status"], answer["reason"]) == (1, "sealed_model_key")
        assert ready(appliance) == (503, [owner.name])

        with wiretap(appliance.url) as tap:
            # The key is for one identity, and goes to no enclave that attests another.
            other = owner.release(appliance, "--identity", "sha256:" + "0" * 64, url=tap.url)
            assert (other["status"], other["error"]) == (1, "appraisal")
            # People see the banner and no warning of Python's; the next step is said to them, too.
            assert "SimulatedAttestationWarning" not in str(other["stderr"])
            assert b"POST" not in tap.upstream
            answer = owner.release(appliance, url=tap.url)
            assert (answer["status"], answer["state"]) == (0, "serving"), answer
            assert "answer" in ask(appliance, tap.url)
            traffic = tap.everything
        # The host hears of it from the enclave a moment after the answer that says so.
        while ready(appliance) != (200, []):
            assert appliance.host.poll() is None
        # Again: nothing happens. Another key: refused, and still serving.
        assert owner.release(appliance)["state"] == "serving"
        assert owner.release(appliance, "--key", str(wrong))["reason"] == "sealed_model_key"
        assert "answer" in ask(appliance)

        secret = bytes(right.key.reveal())
        data = owner.clear.read_bytes()
        weights = [data[at : at + WINDOW_BYTES] for at in (len(data) // 2, len(data) - 4096)]
        assert all(len(set(window)) > WINDOW_BYTES // 3 for window in weights)
        needles = [secret, secret.hex().encode(), *weights]
        found = memory.occurrences(appliance.host.pid, needles)
        assert set(found.values()) == {0}
        # The control: the search finds what is there, and the weights are where they have to be.
        assert memory.occurrences(appliance.host.pid, [b"/.well-known/ohttp-gateway"]).popitem()[1] > 0
        inside = memory.occurrences(appliance.enclave.pid, needles)
        assert sum(inside[window] for window in weights) > 0
        assert not any(needle in traffic for needle in needles)
        for path in appliance.directory.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                assert not any(needle in content for needle in needles), path


def test_a_restarted_enclave_waits_again(tmp_path: Path) -> None:
    """Nothing of the key outlives the process; a second release makes the successor serve."""
    with sealed_appliance(tmp_path) as (owner, appliance):
        assert owner.release(appliance)["state"] == "serving"
        died = appliance.enclave
        died.kill()
        died.wait(20)
        for _ in range(300):
            with contextlib.suppress(httpx.HTTPError, LookupError):
                if ready(appliance)[1]:
                    break
            with contextlib.suppress(subprocess.TimeoutExpired):
                appliance.host.wait(0.1)
        assert ready(appliance) == (503, [owner.name])
        assert owner.release(appliance)["state"] == "serving"
        assert "answer" in ask(appliance)


@pytest.mark.parametrize("attack", ["truncated", "rolled-back", "altered", "another-model"])
def test_a_host_that_tampers_with_the_sealed_file_gets_no_answer(tmp_path: Path, attack: str) -> None:
    """The enclave does not start, or refuses the key's sender with the error's own code, before any token."""
    with contextlib.ExitStack() as stack:
        owner, appliance = stack.enter_context(sealed_appliance(tmp_path))
        path = appliance.directory / "model.sealed"
        data = bytearray(path.read_bytes())
        if attack == "truncated":
            os.truncate(path, len(data) - 1000)
        elif attack == "altered":
            data[len(data) // 2] ^= 1
            path.write_bytes(bytes(data))
        else:
            catalog = owner.directory / "clear.toml"
            _copy_catalog(catalog)
            version = "2" if attack == "rolled-back" else "3"
            if attack == "another-model":
                # Of the same owner, under the same key: a sealing that claims to hold something else.
                edited = bytearray(data)
                edited[64] ^= 1
                path.write_bytes(bytes(edited))
            else:
                owner.tool(
                    "seal", owner.name, "--key", str(owner.key), "--out", str(owner.directory / "old.sealed"),
                    "--model-version", version, "--catalog", str(catalog),
                )  # fmt: skip
                shutil.copy(owner.directory / "old.sealed", path)
        answer = owner.release(appliance)
        expected = {
            "truncated": "sealed_model_truncated",
            "altered": "sealed_model_altered",
            "rolled-back": "sealed_model_rolled_back",
            "another-model": "sealed_model_mismatch",
        }[attack]
        assert (answer["status"], answer["reason"]) == (1, expected), answer
        assert ready(appliance) == (503, [owner.name])
        with pytest.raises(openai.InternalServerError):
            ask(appliance)
