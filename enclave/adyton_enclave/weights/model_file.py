# SPDX-License-Identifier: Apache-2.0
"""A model's files as llama.cpp gets them: a header that we wrote, then tensor data that was hashed on its way.

::

    with ModelFile.open(paths, pin, key=key) as file:
        with CookieStream(file) as stream:
            model = llama_model_load_from_file_ptr(stream.pointer, ...)
            stream.check()
        file.finish()        # before this has returned, the model is nobody's

1. The files are opened once; a sealed one is authenticated by its header, and its key, version and claim are checked.
2. Their headers are parsed by our own reader, merged, and held to the pinned content. llama.cpp never sees them.
3. Every chunk of a tensor is hashed in the buffer from which it is copied to llama.cpp. A chunk that is read again has
   to be what it was.
4. What llama.cpp did not ask for is read and hashed as well; then the root over all tensors is compared.

SECURITY: between 3 and 4 llama.cpp holds weights that nobody has compared yet. It only stores them; no token is
computed before 4, and when 4 fails the model is freed.
"""

import bisect
import os
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

from adyton_enclave.weights.pipeline import BLOCK_BYTES, Block, Pipeline
from adyton_enclave.weights.prefault import Prefault
from adyton_enclave.weights.sources import FileSource, SealedSource, members, read_beginning
from adyton_enclave.weights.terms import SealedTerms
from adyton_protocol.errors import ConfigError, SealedModelMalformed
from adyton_protocol.gguf_canonical import GgufModel, read_model
from adyton_protocol.gguf_checks import check_model
from adyton_protocol.model_identity import ModelContent, ModelPin, check_header, check_weights
from adyton_protocol.random_access import RandomAccess, read_bytes
from adyton_protocol.sealed_model import ModelKey, ModelOpener, SealedHeader, is_sealed, parse_sealed_header
from adyton_protocol.weights_tree import CHUNK_BYTES, WeightsTree, chunk_bytes, chunk_digest

_MAX_THREADS: Final = 4


class ModelFile:
    """The files of one model, open. A context manager; see the module for the order of things.

    Attributes:
        model: The merged header.
        content: The content of the model, if its weights are the pinned ones.
        size_bytes: Of the file that llama.cpp sees.
    """

    def __init__(self, sources: Sequence[RandomAccess], pin: ModelPin, *, threads: int = 0) -> None:
        """Parse the headers and hold them to the pin.

        Args:
            sources: The files in their order; attacker-controlled.
            pin: From the measured configuration.
            threads: That read and hash; 0 for as many as there are processors, up to a few.

        Raises:
            ModelFileError: A header is malformed, or the content is another one.
        """
        self.model: Final[GgufModel] = read_model(sources)
        self.content: Final[ModelContent] = check_header(self.model, pin)
        check_model(self.model)
        self.size_bytes: Final = self.model.size_bytes
        self._pin = pin
        self._sources = sources
        self._placements = self.model.placements
        self._starts = [placement.offset for placement in self._placements]
        self._begins = frozenset(self._starts)
        self._tree = WeightsTree(placement.tensor for placement in self._placements)
        threads = threads or min(_MAX_THREADS, max(2, os.cpu_count() or 1))
        self._pipeline = Pipeline(self._placements, sources, self._tree, threads=threads)
        self._prefault = Prefault(self.size_bytes)
        self._closing = ExitStack()
        self._closing.callback(self._pipeline.close)
        self._closing.callback(self._prefault.close)

    @classmethod
    def open(
        cls,
        paths: Sequence[str],
        pin: ModelPin,
        *,
        key: ModelKey | None = None,
        terms: SealedTerms | None = None,
        threads: int = 0,
    ) -> Self:
        """Open files of the host.

        Args:
            paths: One file, or the parts of a split model in their order. A sealed model is one file.
            pin: From the measured configuration.
            key: Of a sealed model.
            terms: What is demanded of a sealed model; None for one in the clear.
            threads: See the constructor.

        Raises:
            ModelFileError: A file is unreadable, malformed, sealed under another key, altered, too old, or another one.
            ConfigError: A key is missing or not wanted, or there are several sealed files.
        """
        with ExitStack() as stack:
            files = [FileSource(path) for path in paths]
            for file in files:
                stack.callback(file.close)
            sources: Sequence[RandomAccess] = files
            if terms is not None:
                if key is None or len(files) != 1:
                    raise ConfigError("a sealed model is one file and needs its key")
                sources = _unsealed(files[0], pin, key, terms, stack)
            made = cls(sources, pin, threads=threads)
            made._closing.callback(stack.pop_all().close)
            # The pipeline's threads end before the files are closed.
            made._closing.callback(made._pipeline.close)
            return made

    def begins_at(self, position: int) -> bool:
        """Whether the header, or a tensor, can be read from here; see ``CookieStream``."""
        return position in self._begins or position < len(self.model.header)

    def piece(self, position: int, most: int) -> memoryview:
        """Bytes of the canonical file; see ``CookieStream``."""
        header = self.model.header
        if position < len(header):
            return memoryview(header)[position : position + most]
        number = bisect.bisect_right(self._starts, position) - 1
        placement = self._placements[number]
        within = position - placement.offset
        if within >= placement.size_bytes:
            following = self._starts[number + 1] if number + 1 < len(self._starts) else self.size_bytes
            return memoryview(bytes(min(most, following - position)))
        index, begin = divmod(within, BLOCK_BYTES)
        piece = self._pipeline.get(Block(number, index))[begin : begin + most]
        self._prefault.note_read(len(piece))
        return piece

    def finish(self) -> None:
        """Hash what nobody has read, and compare the root over all tensors with the pin.

        Raises:
            ModelFileError: The weights are not the pinned ones, or cannot be read.
        """
        self._prefault.close()
        by_name = {placement.tensor.name: placement for placement in self._placements}
        for tensor, index in list(self._tree.missing()):
            placement = by_name[tensor.name]
            offset = placement.source_offset + index * CHUNK_BYTES
            chunk = read_bytes(self._sources[placement.source], offset, chunk_bytes(tensor, index))
            self._tree.record(tensor.name, index, chunk_digest(chunk))
        # SECURITY: the comparison that makes what llama.cpp holds the model that clients were promised.
        check_weights(self._tree.root(), self._pin)

    def close(self) -> None:
        """Stop reading, overwrite buffers, close files. Idempotent."""
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _unsealed(
    file: FileSource, pin: ModelPin, key: ModelKey, terms: SealedTerms, stack: ExitStack
) -> Sequence[RandomAccess]:
    """The files inside a sealed one, once its header is known to be what its sealer wrote."""
    beginning = read_beginning(file)
    terms.check(parse_sealed_header(beginning), pin)
    opener = ModelOpener(key, beginning)
    source = SealedSource(file, opener)
    stack.callback(source.wipe)
    return members(source, opener.header.member_bytes)


def sealed_header(path: str) -> SealedHeader:
    """What a sealed file says about itself, without a key; nothing of it is authenticated.

    Raises:
        SealedModelError: It is no sealed model, or is cut short.
        ModelFileError: It cannot be read.
    """
    file = FileSource(path)
    try:
        beginning = read_beginning(file)
        if not is_sealed(beginning):
            raise SealedModelMalformed("the configuration says that the model is sealed, but its file is not")
        header = parse_sealed_header(beginning)
        header.check_file_bytes(file.size_bytes)
        return header
    finally:
        file.close()
