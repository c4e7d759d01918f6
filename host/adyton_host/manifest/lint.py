# SPDX-License-Identifier: Apache-2.0
"""Refuses manifests that are unfit for production, each for a named reason.

Needs neither Gramine nor anything else. One kind of finding can be waived here, and only on evidence: a model may be an
allowed file if the configuration that is measured pins its digest, because the enclave checks that digest on the very
bytes that it loads (docs/manifest.md).
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adyton_host.manifest import rules_files, rules_options, rules_process, syntax
from adyton_host.manifest.rule import Rule
from adyton_host.manifest.view import View, view
from adyton_protocol.errors import ConfigError

ALL_RULES: Final[tuple[Rule, ...]] = (
    *syntax.RULES, *rules_options.RULES, *rules_process.RULES, *rules_files.RULES,
)  # fmt: skip

PINNED_MODELS: Final = "pinned-models"
"""The waiver."""
PINNED_MODELS_REASON: Final = (
    "the measured enclave.toml pins their digests, which the enclave checks on the bytes that it loads"
)
BY_HAND: Final = "by hand"
_WAIVED_RULE: Final = "allowed-file"
MAX_MANIFEST_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A rule that is broken.

    Attributes:
        rule: Its name.
        reason: Why it is one.
        found: What breaks it.
    """

    rule: str
    reason: str
    found: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waived:
    """Findings that are accepted, by which waiver and why."""

    rule: str
    waiver: str
    reason: str
    found: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the linter says.

    Attributes:
        refused: Broken rules.
        waived: Broken rules that are accepted.
        rules: How many rules were looked at.
    """

    refused: tuple[Finding, ...]
    waived: tuple[Waived, ...]
    rules: int

    @property
    def passed(self) -> bool:
        """Whether nothing is refused."""
        return not self.refused


def lint(data: bytes, *, name: str, directory: Path | None, waive: Collection[str] = ()) -> Verdict:
    """Look at a manifest.

    Args:
        data: Its bytes.
        name: Of the file, for errors.
        directory: In which Gramine would be started; the configuration is read below it.
        waive: Names of rules that the caller accepts as broken. No command that signs or measures has such a thing.

    Raises:
        ConfigError: It is not TOML, or a waived rule does not exist.
    """
    unknown = sorted(set(waive) - {rule.name for rule in ALL_RULES})
    if unknown:
        raise ConfigError(
            f"there is no rule {', '.join(unknown)}; `adyton-host manifest lint --rules` lists them"
        )
    manifest = view(data, name, directory)
    refused: list[Finding] = []
    waived: list[Waived] = []
    for rule in ALL_RULES:
        found = tuple(rule.check(manifest))
        if rule.name == _WAIVED_RULE:
            found, accepted = _without_pinned(found, manifest)
            if accepted:
                waived.append(
                    Waived(rule=rule.name, waiver=PINNED_MODELS, reason=PINNED_MODELS_REASON, found=accepted)
                )
        if found and rule.name in waive:
            waived.append(
                Waived(rule=rule.name, waiver=BY_HAND, reason="accepted on the command line", found=found)
            )
        elif found:
            refused.append(Finding(rule=rule.name, reason=rule.reason, found=found))
    return Verdict(refused=tuple(refused), waived=tuple(waived), rules=len(ALL_RULES))


def _without_pinned(found: tuple[str, ...], manifest: View) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """SECURITY: a file is waived only under the exact URI behind a path that the measured configuration pins."""
    pinned = manifest.pinned()
    return tuple(uri for uri in found if uri not in pinned), tuple(uri for uri in found if uri in pinned)


def read_manifest(path: Path) -> tuple[bytes, Path]:
    """The bytes of a manifest and the directory in which Gramine would start it.

    Args:
        path: The manifest, or the directory of an image with exactly one that is not signed yet.

    Raises:
        ConfigError: There is none, or more than one, or it cannot be read.
    """
    file = path
    if path.is_dir():
        found = sorted(path.glob("*.manifest"))
        if len(found) != 1:
            raise ConfigError(
                f"{path} holds {'no' if not found else 'more than one'} *.manifest; name the file"
            )
        file = found[0]
    try:
        if file.stat().st_size > MAX_MANIFEST_BYTES:
            raise ConfigError(f"{file} is larger than {MAX_MANIFEST_BYTES} bytes")
        return file.read_bytes(), file.parent
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
