# SPDX-License-Identifier: Apache-2.0
"""Signed notes and log checkpoints: a few lines of text that people can read, with signatures below.

::

    releases.example.org/adyton                      origin: the log's name, and that of the key that signs
    7                                                size: how many statements the log has
    nND/nri/U0xuHUrYSy0HtMeal2vzD9V4k/BO79C+QeI=     root of the tree over them, base64
    time 2026-11-21T20:00:00Z                        when the log's keeper said so

    — releases.example.org/adyton yBJ0...=           base64 of key id || Ed25519 signature

The text is signed with its last line break and without the empty line. The form is that of C2SP's signed-note and
tlog-checkpoint; the line with the time is what that format calls an extension. A signature by a key that the reader
does not know is skipped, which is how keys are changed; a bad signature by one that he knows spoils the note.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

from adyton_attestation.merkle import HASH_BYTES, MAX_TREE_SIZE
from adyton_attestation.signing_keys import KEY_ID_BYTES, SIGNATURE_BYTES, PublicKey
from adyton_protocol.errors import ReferenceValueError

if TYPE_CHECKING:
    # Only the type: whoever verifies needs no code that signs.
    from adyton_attestation.private_keys import PrivateKey

MAX_NOTE_CHARS: Final = 4096
MAX_SIGNATURES: Final = 16
_DASH: Final = "— "
_TEXT: Final = re.compile(r"(?:[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?\n)+")
_SIGNATURE: Final = re.compile(_DASH + r"([A-Za-z0-9._/@-]{1,128}) ([A-Za-z0-9+/]{91}=)")
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,15}")
_ROOT: Final = re.compile(r"[A-Za-z0-9+/]{43}=")
_TIME: Final = re.compile(r"time ([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)")
_LINES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedNote:
    """A text with signatures; parsed, and not verified.

    Attributes:
        text: Lines of printable ASCII, each with its line break.
        signatures: Name, key id and signature of each.
    """

    text: str
    signatures: tuple[tuple[str, bytes, bytes], ...]

    def signed_by(self, keys: Sequence[PublicKey]) -> frozenset[PublicKey]:
        """Return the keys among ``keys`` whose signatures are good.

        Raises:
            ReferenceValueError: A signature that claims to be of one of them is not.
        """
        good = set()
        for name, key_id, signature in self.signatures:
            for key in keys:
                if (key.name, key.key_id) != (name, key_id):
                    continue
                if not key.verifies(self.text.encode("ascii"), signature):
                    raise ReferenceValueError(
                        "a signature below the checkpoint is not of the key that it names"
                    )
                good.add(key)
        return frozenset(good)

    def with_signature(self, key: "PrivateKey") -> Self:
        """Return the note with a signature by this key instead of any it had by it."""
        public = key.public
        mine = (public.name, public.key_id, key.sign(self.text.encode("ascii")))
        others = [item for item in self.signatures if item[:2] != mine[:2]]
        return type(self)(text=self.text, signatures=(*others, mine))

    def __str__(self) -> str:
        """The note as it is stored and sent."""
        lines = [
            f"{_DASH}{name} {base64.b64encode(key_id + signature).decode('ascii')}\n"
            for name, key_id, signature in self.signatures
        ]
        return self.text + "\n" + "".join(lines)


def parse_note(data: str) -> SignedNote:
    """Read a signed note; attacker-controlled.

    Raises:
        ReferenceValueError: Not one.
    """
    if len(data) > MAX_NOTE_CHARS:
        raise ReferenceValueError(f"a signed note has at most {MAX_NOTE_CHARS} characters")
    text, blank, below = data.partition("\n\n")
    text += "\n"
    lines = below.removesuffix("\n").split("\n")
    if not blank or not below.endswith("\n") or _TEXT.fullmatch(text) is None:
        raise ReferenceValueError("a signed note is lines of text, an empty line, and lines of signatures")
    if len(lines) > MAX_SIGNATURES:
        raise ReferenceValueError(f"a signed note has at most {MAX_SIGNATURES} signatures")
    note = SignedNote(text=text, signatures=tuple(_signature(line) for line in lines))
    if len({item[:2] for item in note.signatures}) != len(note.signatures) or str(note) != data:
        raise ReferenceValueError("a signed note names a key twice, or is not in its one form")
    return note


def _signature(line: str) -> tuple[str, bytes, bytes]:
    found = _SIGNATURE.fullmatch(line)
    if found is None:
        raise ReferenceValueError("a line below a signed note is no signature")
    raw = base64.b64decode(found[2])
    if len(raw) != KEY_ID_BYTES + SIGNATURE_BYTES:
        raise ReferenceValueError("a line below a signed note is no Ed25519 signature")
    return found[1], raw[:KEY_ID_BYTES], raw[KEY_ID_BYTES:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a log's keeper says about it at a time.

    Attributes:
        origin: Name of the log.
        size: Number of its entries.
        root: Root of the tree over them, 32 bytes.
        time_s: Unix time of the statement.
    """

    origin: str
    size: int
    root: bytes
    time_s: int

    def note(self) -> SignedNote:
        """The text, without a signature."""
        time = datetime.fromtimestamp(self.time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        root = base64.b64encode(self.root).decode("ascii")
        return SignedNote(text=f"{self.origin}\n{self.size}\n{root}\ntime {time}\n", signatures=())


def read_checkpoint(note: SignedNote) -> Checkpoint:
    """Read the text of a note as a checkpoint.

    Raises:
        ReferenceValueError: It says something else.
    """
    lines = note.text.split("\n")[:-1]
    if len(lines) != _LINES:
        raise ReferenceValueError("a checkpoint has four lines: origin, size, root, time")
    origin, size, root, time = lines
    stated = _TIME.fullmatch(time)
    if _SIZE.fullmatch(size) is None or _ROOT.fullmatch(root) is None or stated is None:
        raise ReferenceValueError("a checkpoint has four lines: origin, size, root, time")
    try:
        time_s = int(datetime.strptime(stated[1], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())
    except ValueError as cause:
        raise ReferenceValueError("a checkpoint's time is none") from cause
    checkpoint = Checkpoint(origin=origin, size=int(size), root=base64.b64decode(root), time_s=time_s)
    # SECURITY: one text for one meaning; base64 has spare bits, in which two texts could differ.
    if (
        checkpoint.size > MAX_TREE_SIZE
        or len(checkpoint.root) != HASH_BYTES
        or checkpoint.note().text != note.text
    ):
        raise ReferenceValueError("a checkpoint is not in its one form")
    return checkpoint
