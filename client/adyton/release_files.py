# SPDX-License-Identifier: Apache-2.0
"""The files of whoever signs and logs releases: keys, statements, the log and its checkpoint.

Nothing is overwritten that cannot be made again: a key file is created once, a log is only appended to. What is
replaced (a checkpoint, an export) is written beside its place and renamed into it.
"""

import getpass
import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adyton_attestation.private_keys import NONCE_BYTES, SALT_BYTES, SEED_BYTES, PrivateKey, public_key_of
from adyton_attestation.release_log import MAX_LOG_BYTES, ReleaseLog, parse_log
from adyton_attestation.signed_note import Checkpoint, SignedNote, parse_note, read_checkpoint
from adyton_protocol.errors import ConfigError, ReferenceValueError

CHECKPOINT_SUFFIX: Final = ".checkpoint"
_MIN_PASSPHRASE: Final = 12
_MAX_FILE_BYTES: Final = MAX_LOG_BYTES
_PRIVATE: Final = 0o600
_PUBLIC: Final = 0o644
_OTHERS: Final = 0o077


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLog:
    """A log on disk that is what its checkpoint says, or longer.

    Attributes:
        path: Of the log.
        log: What is in it.
        note: Its checkpoint; None while it has none.
    """

    path: Path
    log: ReleaseLog
    note: SignedNote | None

    @property
    def checkpoint(self) -> Checkpoint | None:
        """What the checkpoint says."""
        return None if self.note is None else read_checkpoint(self.note)

    @property
    def unsigned(self) -> int:
        """Entries that the checkpoint does not cover: an append was interrupted."""
        return len(self.log.entries) - (0 if self.checkpoint is None else self.checkpoint.size)


def open_log(path: Path) -> KeptLog:
    """Read a log and its checkpoint; neither there is an empty log.

    Raises:
        ConfigError: Unreadable, malformed, or the log is not what its checkpoint says.
    """
    data, note = read_if_there(path, "log"), read_if_there(checkpoint_path(path), "checkpoint")
    log = parse_log(data or b"")
    try:
        signed = None if note is None else parse_note(note.decode("utf-8", "replace"))
        kept = KeptLog(path=path, log=log, note=signed)
        checkpoint = kept.checkpoint
    except ReferenceValueError as error:
        raise ConfigError(f"{checkpoint_path(path)}: {error}") from error
    if checkpoint is None and log.entries:
        raise ConfigError(f"{checkpoint_path(path)} is missing; restore it from the backup of the log")
    if checkpoint is not None and not log.continues(checkpoint):
        raise ConfigError(
            f"{path} is not the log that {checkpoint_path(path)} is of: an entry was changed or removed. "
            "Restore both from the backup; never sign over a difference, clients would see a fork"
        )
    return kept


def append_line(path: Path, line: bytes) -> None:
    """Append one line to a log, on disk before this returns.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _PUBLIC)
        with os.fdopen(descriptor, "wb") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError(f"the log {path} cannot be written: {error.strerror}") from error


def checkpoint_path(log: Path) -> Path:
    """Where the checkpoint of a log is."""
    return log.with_name(log.name + CHECKPOINT_SUFFIX)


def read_if_there(path: Path, what: str) -> bytes | None:
    """Read a file, None if there is none.

    Raises:
        ConfigError: It cannot be read, or is far too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"the {what} {path} cannot be read: {error.strerror}") from error
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError(f"the {what} {path} is larger than {_MAX_FILE_BYTES} bytes")
    return data


def replace_file(path: Path, data: bytes) -> None:
    """Write a file in one step.

    Raises:
        ConfigError: It cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def create_key(path: Path, name: str, passphrase: bytes | None) -> PrivateKey:
    """Make a key, and its file with mode 0600; an existing file is left alone.

    Raises:
        ConfigError: The file exists or cannot be written.
        LocalProtocolError: The name is no name.
    """
    key = PrivateKey(name=name, seed=secrets.token_bytes(SEED_BYTES))
    data = key.to_file(passphrase, random=secrets.token_bytes(SALT_BYTES + NONCE_BYTES))
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise ConfigError(f"{path} exists; a key file is never overwritten. Choose another name") from error
    except OSError as error:
        raise ConfigError(f"the key file {path} cannot be written: {error.strerror}") from error
    return key


def load_key(path: Path, passphrase_file: Path | None) -> PrivateKey:
    """Open a key file, asking for its passphrase if it has one and no file gives it.

    Raises:
        ConfigError: Unusable, readable by others, or the passphrase is wrong.
    """
    data = read_if_there(path, "key file")
    if data is None:
        raise ConfigError(f"there is no key file {path}; make one with: adyton release keygen")
    if path.stat().st_mode & _OTHERS:
        raise ConfigError(f"others may read the key file {path}; correct it with: chmod 600 {path}")
    public, sealed = public_key_of(data)
    passphrase = ask_passphrase(f"passphrase of {public.name}: ", passphrase_file) if sealed else None
    return PrivateKey.from_file(data, passphrase)


def ask_passphrase(prompt: str, file: Path | None, *, twice: bool = False) -> bytes:
    """Take a passphrase from a file's first line or from the terminal.

    Args:
        prompt: Shown on the terminal.
        file: Instead of the terminal.
        twice: For a new passphrase: typed twice, and not too short.

    Raises:
        ConfigError: There is neither, or what was typed will not do.
    """
    if file is not None:
        data = read_if_there(file, "passphrase file")
        if data is None:
            raise ConfigError(f"there is no passphrase file {file}")
        passphrase = data.split(b"\n", 1)[0].rstrip(b"\r")
    elif sys.stdin.isatty():
        passphrase = getpass.getpass(prompt).encode()
        if twice and getpass.getpass("once more: ").encode() != passphrase:
            raise ConfigError("the two passphrases differ; nothing was written")
    else:
        raise ConfigError("a passphrase is needed and there is no terminal; give --passphrase-file")
    if twice and len(passphrase) < _MIN_PASSPHRASE:
        raise ConfigError(
            f"a passphrase has at least {_MIN_PASSPHRASE} characters; five dice words are better"
        )
    return passphrase
