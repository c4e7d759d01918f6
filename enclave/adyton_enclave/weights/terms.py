# SPDX-License-Identifier: Apache-2.0
"""What the measured configuration demands of a sealed model, beside what is in it."""

from dataclasses import dataclass

from adyton_protocol.errors import SealedModelMismatch, SealedModelRolledBack
from adyton_protocol.model_identity import ModelPin
from adyton_protocol.sealed_model import SealedHeader


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedTerms:
    """What the measured configuration demands of a sealed file.

    Attributes:
        key_id: Of the key that it must be sealed under, 32 bytes.
        min_version: Smallest model version.
    """

    key_id: bytes
    min_version: int = 0

    def check(self, header: SealedHeader, pin: ModelPin) -> None:
        """Hold a header to the terms. The header may be unauthenticated, so this only ever refuses early.

        Raises:
            SealedModelMismatch: It names another key or another content.
            SealedModelRolledBack: It is too old.
        """
        if header.key_id != self.key_id:
            raise SealedModelMismatch("the file is sealed under another key than the one configured")
        if header.model_version < self.min_version:
            raise SealedModelRolledBack(
                f"the sealed model has version {header.model_version}; at least {self.min_version} is demanded"
            )
        if header.content != pin.content:
            raise SealedModelMismatch(
                "the sealed model says that it holds another model than the one configured"
            )
