# SPDX-License-Identifier: Apache-2.0
"""A checkout, a Python and a Gramine of a few small files, to render manifests from in milliseconds."""

import base64
import hashlib
import shutil
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adyton_host.catalog import Attachment, CatalogModel
from adyton_host.manifest.gramine import GramineFiles
from adyton_host.manifest.interpreter import Distribution, InstalledFile, Interpreter
from adyton_host.manifest.render import Wanted

MANIFESTS: Final = Path(__file__).resolve().parent.parent / "manifests"
PIN: Final = "sha256:" + "ab" * 32
_BASE: Final = 0x40_0000


def elf(needed: Sequence[str] = (), *, runpath: str = "", interpreter: str = "") -> bytes:
    """An ELF file that asks for libraries and does nothing: headers, a dynamic section, and its strings."""
    strings = b"\0"
    places: dict[str, int] = {}
    for text in (*needed, runpath, interpreter):
        places[text] = len(strings)
        strings += text.encode() + b"\0"
    segments = 3 if interpreter else 2
    strings_at = 64 + 56 * segments
    dynamic_at = strings_at + len(strings) + -len(strings) % 8
    entries = [(1, places[name]) for name in needed] + ([(29, places[runpath])] if runpath else [])
    entries += [(5, _BASE + strings_at), (0, 0)]
    dynamic = b"".join(struct.pack("<qQ", *entry) for entry in entries)
    size = dynamic_at + len(dynamic)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 3, 62, 1, 0, 64, 0, 0, 64, 56, segments, 0, 0, 0
    )
    table = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 4096)
    table += struct.pack(
        "<IIQQQQQQ", 2, 6, dynamic_at, _BASE + dynamic_at, _BASE + dynamic_at, len(dynamic), len(dynamic), 8
    )
    if interpreter:
        at = strings_at + places[interpreter]
        table += struct.pack(
            "<IIQQQQQQ", 3, 4, at, _BASE + at, _BASE + at, len(interpreter) + 1, len(interpreter) + 1, 1
        )
    return (header + table + strings).ljust(dynamic_at, b"\0") + dynamic


def _put(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def gguf(*, layers: int = 2) -> bytes:
    """The header of a model, with the sizes that decide about memory."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    facts = {
        "block_count": layers,
        "embedding_length": 64,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
    }
    pairs = [text("general.architecture") + struct.pack("<I", 8) + text("llama")]
    pairs += [text(f"llama.{key}") + struct.pack("<II", 4, value) for key, value in facts.items()]
    tokens = b"".join(text(word) for word in ("a", "b", "c"))
    pairs.append(text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 3) + tokens)
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(pairs)


@dataclass(frozen=True, slots=True)
class TinyImage:
    """What manifests are rendered from.

    Attributes:
        root: A checkout, and beside it Python, Gramine, a system and models.
    """

    root: Path

    @property
    def manifests(self) -> Path:
        """Template and lists."""
        return self.root / "checkout" / "manifests"

    @property
    def packages(self) -> Path:
        """Where packages are installed."""
        return self.root / "python" / "lib" / "python3.11" / "site-packages"

    @property
    def libraries(self) -> Path:
        """Of the system."""
        return self.root / "system"

    def interpreter(self) -> Interpreter:
        """The Python, as it would describe itself."""
        stdlib = self.root / "python" / "lib" / "python3.11"
        files = (
            InstalledFile("demo/__init__.py", self.packages / "demo" / "__init__.py", None),
            InstalledFile("demo/_native.so", self.packages / "demo" / "_native.so", None),
            InstalledFile("demo/tests/test_demo.py", self.packages / "demo" / "tests" / "test_demo.py", None),
            InstalledFile("demo/data.txt", self.packages / "demo" / "data.txt", None),
            InstalledFile("../../../bin/demo", self.root / "python" / "bin" / "demo", None),
        )
        version = (self.packages / "demo" / "VERSION").read_text()
        return Interpreter(
            version="3.11",
            program=self.root / "python" / "bin" / "python3.11",
            stdlib=stdlib,
            library_dir=self.root / "python" / "lib",
            platlibdir="lib",
            distributions={
                "demo": Distribution(version=version, files=tuple(_recorded(file) for file in files))
            },
            cpu=frozenset({"AVX", "AVX512"}),
        )

    def wanted(self, **changes: object) -> Wanted:
        """An order for this image; ``changes`` replace parts of it."""
        models = self.root / "models"
        facts: dict[str, object] = {
            "manifests": self.manifests,
            "interpreter": self.interpreter(),
            "gramine": GramineFiles(self.root / "gramine"),
            "models": (
                CatalogModel(
                    name="small", path=models / "small.gguf", content=PIN, weights=PIN, license="Apache-2.0",
                    n_ctx=128, role="generator", sampling={}, scorer="judge",
                ),
                CatalogModel(
                    name="judge", path=models / "judge.gguf", content=PIN, weights=PIN, license="Apache-2.0",
                    n_ctx=128, role="scorer", sampling={}, adapter=Attachment(models / "judge.toml", PIN),
                ),
            ),
            "overrides": {"engine": {"n_ctx_total": 1024}},
            "port": 8471,
            "threads": 3,
            "directories": (self.libraries,),
        }  # fmt: skip
        return Wanted(**{**facts, **changes})  # type: ignore[arg-type]


def _recorded(file: InstalledFile) -> InstalledFile:
    """With the digest that pip would have written down."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(file.path.read_bytes()).digest()).rstrip(b"=").decode()
    return InstalledFile(file.name, file.path, digest)


def make_tiny_image(root: Path) -> TinyImage:
    """Write all files of a tiny image below ``root``."""
    image = TinyImage(root)
    for name in ("enclave.manifest.template", "root.toml", "llama-build.toml"):
        _put(image.manifests / name, (MANIFESTS / name).read_bytes())
    _put(image.manifests / "requirements-enclave.txt", f"demo==1.0 \\\n    --hash=sha256:{'00' * 32}\n")
    _put(
        image.manifests / "measured-files.txt",
        "# Modules.\nadyton_enclave/__init__.py\nadyton_enclave/__main__.py\nadyton_protocol/media.py\n",
    )
    checkout = root / "checkout"
    for name in ("__init__", "__main__", "simulation", "probe", "unlisted"):
        _put(checkout / "enclave" / "adyton_enclave" / f"{name}.py", f"# {name}\n")
    _put(checkout / "protocol" / "adyton_protocol" / "media.py", "# media\n")
    _put(checkout / "host" / "adyton_host" / "relay.py", "# relay\n")
    _put(checkout / "client" / "adyton" / "client.py", "# client\n")
    _put(checkout / "bench" / "sealing.py", "# bench\n")

    loader = "/lib64/ld-linux-x86-64.so.2"
    python = root / "python"
    _put(python / "bin" / "python3.11", elf(["libpython3.11.so.1.0", "libc.so.6"], interpreter=loader))
    _put(python / "bin" / "demo", "#!/bin/sh\n")
    _put(python / "lib" / "libpython3.11.so.1.0", elf(["libm.so.6", "libc.so.6"]))
    for name in (
        "os.py",
        "json/__init__.py",
        "test/test_os.py",
        "tkinter/__init__.py",
        "encodings/cp1252.py",
    ):
        _put(python / "lib" / "python3.11" / name, f"# {name}\n")
    _put(python / "lib" / "python3.11" / "__pycache__" / "os.cpython-311.pyc", b"\0\1\2")
    _put(python / "lib" / "python3.11" / "lib-dynload" / "_ssl.so", elf(["libz.so.1"]))
    _put(image.packages / "demo" / "__init__.py", "# demo\n")
    _put(image.packages / "demo" / "VERSION", "1.0")
    _put(image.packages / "demo" / "data.txt", "data\n")
    _put(image.packages / "demo" / "tests" / "test_demo.py", "# test\n")
    _put(image.packages / "demo" / "_native.so", elf(["libown.so", "libstdc++.so.6"], runpath="$ORIGIN"))
    _put(image.packages / "other" / "__init__.py", "# nobody requires it\n")

    _put(image.libraries / "libz.so.1", elf(["libc.so.6"]))
    _put(image.libraries / "libown.so", elf())
    _put(image.libraries / "libstdc++.so.6", elf(["libgcc_s.so.1", "libm.so.6"]))
    _put(image.libraries / "libgcc_s.so.1", elf(["libc.so.6"]))
    _put(image.libraries / "libc.so.6", b"of the system, and never taken")
    _put(root / "gramine" / "libsysdb.so", elf(["libpal.so"]))
    for name in ("ld-linux-x86-64.so.2", "libc.so.6", "libm.so.6", "libanl.so.1"):
        _put(root / "gramine" / "runtime" / "glibc" / name, elf() + name.encode())
    _put(root / "models" / "small.gguf", gguf())
    _put(root / "models" / "judge.gguf", gguf(layers=1))
    _put(root / "models" / "judge.toml", "# adapter\n")
    for name in ("pck_key.pem", "platform.json"):
        _put(root / "platform" / name, f"{name} of a simulated platform\n")
    return image


def copy_tiny_image(image: TinyImage, root: Path) -> TinyImage:
    """The same files in another place, with other times."""
    shutil.copytree(image.root, root, symlinks=True, copy_function=shutil.copyfile)
    return TinyImage(root)
