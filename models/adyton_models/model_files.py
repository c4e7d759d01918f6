# SPDX-License-Identifier: Apache-2.0
"""What GGUF files hold, computed with the code that the enclave uses when it loads them."""

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adyton_enclave.weights.sources import FileSource, read_beginning
from adyton_protocol.digests import Digest
from adyton_protocol.errors import ModelFileError, SealedModelError
from adyton_protocol.gguf import read_header
from adyton_protocol.gguf_canonical import GgufModel, read_model, split_count
from adyton_protocol.model_identity import ModelContent, ModelPin, model_content
from adyton_protocol.random_access import RandomAccess
from adyton_protocol.sealed_model import is_sealed
from adyton_protocol.weights_tree import hash_weights

_SPLIT_NAME: Final = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
Report = Callable[[float, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadModel:
    """A model whose files were read from beginning to end.

    Attributes:
        paths: Its files, in order.
        model: Their merged header.
        content: What they hold.
    """

    paths: tuple[Path, ...]
    model: GgufModel
    content: ModelContent


def files_of(path: Path) -> tuple[Path, ...]:
    """All files of the model whose first file this is; split ones are named as `gguf-split` names them.

    Raises:
        ModelFileError: The file is no GGUF, is a part but not the first, or says that there are others and is not
            named like one of several.
        SealedModelError: It is sealed.
    """
    with closing(FileSource(str(path))) as source:
        if is_sealed(read_beginning(source)):
            raise SealedModelError(
                "it is sealed, so that only an enclave can read it; name the clear file that it was made from, or "
                "where a catalog lists it (`seal --register NAME`), ask for `adyton-models identity NAME`"
            )
        count = split_count(read_header(source))
    if count == 1:
        return (path,)
    named = _SPLIT_NAME.fullmatch(path.name)
    if named is None or int(named["count"]) != count:
        raise ModelFileError(
            f"it is one of {count} files, but is not named ...-00001-of-{count:05}.gguf", check="split"
        )
    if int(named["number"]) != 1:
        first = f"{named['stem']}-00001-of-{count:05}.gguf"
        raise ModelFileError(f"it is not the first of its model's files; name {first}", check="split")
    return tuple(
        path.with_name(f"{named['stem']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)
    )


def read_files(path: Path, report: Report = lambda _share, _note: None) -> ReadModel:
    """Read and hash a model.

    Args:
        path: Its only or its first file.
        report: Called with the share that is done, from 0 to 1, and a note.

    Raises:
        ModelFileError: A file is missing, malformed, or they are not one model.
    """
    try:
        paths = files_of(path)
        with ExitStack() as stack:
            sources = [stack.enter_context(closing(FileSource(str(each)))) for each in paths]
            model = read_model(sources)
            content = model_content(model, _weights(model, sources, report))
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}", check=error.check) from error
    return ReadModel(paths=paths, model=model, content=content)


def _weights(model: GgufModel, sources: Sequence[RandomAccess], report: Report) -> Digest:
    if not model.placements:
        raise ModelFileError("the file holds no tensors", check="count")
    total = sum(placement.size_bytes for placement in model.placements)
    return hash_weights(model, sources, lambda done: report(done / total, f"{done / 1e6:.0f} MB")).root()


def pin_of(path: Path) -> ModelPin:
    """What a configuration has to say to accept exactly this model; see :func:`read_files`."""
    return read_files(path).content.pin
