# SPDX-License-Identifier: Apache-2.0
"""Made-up process reward models, one of each convention: random weights, but the vocabulary's real kind and ids.

Beside each model lies what its convention needs: the shipped adapter, and a random head for those that have one.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf.quants import quantize

from adyton_enclave.engine import ModelSpec
from adyton_enclave.scoring.files import ScorerFiles
from adyton_models.model_files import pin_of
from adyton_protocol.digests import sha256_hex

ADAPTERS = Path(__file__).resolve().parents[1] / "models" / "adapters"
WIDTH = 64
HEAD_WIDTH = 32
"""Of an attention head; a multiple of 32, so that cached values can be Q8_0."""

LLAMA3_TEMPLATE = (
    "{{- bos_token }}{{- '<|start_header_id|>system<|end_header_id|>\n\nToday is Monday.\n\n' }}"
    "{%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] | trim }}"
    "{%- set messages = messages[1:] %}{%- endif %}{{- '<|eot_id|>' }}"
    "{%- for message in messages %}{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)


@dataclass(frozen=True)
class TinyScorer:
    """Files of a scorer."""

    name: str
    path: Path
    adapter: Path
    head: Path | None
    layers: tuple[tuple[np.ndarray, np.ndarray], ...] = ()

    def spec(self, *, n_ctx: int = 512, **changes: object) -> ModelSpec:
        """How the engine loads it."""
        fields: dict[str, object] = {
            "name": self.name,
            "path": str(self.path),
            "pin": pin_of(self.path),
            "n_ctx": n_ctx,
            "generates": False,
            "scorer": self.files().parts,
            "hidden_states": self.head is not None,
        }
        return ModelSpec(**{**fields, **changes})  # type: ignore[arg-type]

    def files(self, adapter: Path | None = None) -> ScorerFiles:
        """Where adapter and head lie; another adapter on request."""
        chosen = self.adapter if adapter is None else adapter
        return ScorerFiles(
            adapter=chosen,
            adapter_digest=sha256_hex(chosen.read_bytes()),
            head=self.head,
            head_digest=None if self.head is None else sha256_hex(self.head.read_bytes()),
        )


# --- Vocabularies -----------------------------------------------------------------------------------------


def _byte_characters() -> tuple[str, ...]:
    """GPT-2's characters in the order in which vocabularies of its kind number them."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return (*map(chr, plain), *(chr(256 + index) for index in range(len(others))))


_MERGES = ("Ġ a", "Ġ t", "h e", "Ġt he", "i n", "e r", "a n", "Ġ S", "t e", "Ġ =", "Ċ Ċ", "Ġ +", "Ġ -")


def _bpe(writer: gguf.GGUFWriter, pre: str, controls: dict[int, str], bos: str, size: int) -> None:
    """A vocabulary of bytes and a few merges, control tokens at their ids, fillers elsewhere."""
    tokens = [*_byte_characters(), *(merge.replace(" ", "") for merge in _MERGES)]
    tokens += [f"filler{number}" for number in range(len(tokens), size)]
    kinds = [gguf.TokenType.NORMAL] * size
    for token_id, text in controls.items():
        tokens[token_id], kinds[token_id] = text, gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(list(_MERGES))
    writer.add_bos_token_id(tokens.index(bos))
    writer.add_eos_token_id(tokens.index(bos))
    writer.add_add_bos_token(pre == "llama-bpe")


def _spm(writer: gguf.GGUFWriter, placed: dict[int, str], size: int) -> None:
    """A SentencePiece vocabulary: bytes, characters, a few words, some pieces at given ids."""
    words = ["▁", "▁S", "▁St", "te", "p", "▁th", "▁the", "▁a", "▁1", "er", "in", "▁=", "▁1:"]
    words += [character for character in map(chr, range(0x21, 0x7F)) if character not in words]
    words += ["к", "и", "▁к"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    waiting = [word for word in words if word not in placed.values()]
    while len(tokens) < size:
        at = len(tokens)
        tokens.append(placed.get(at) or (waiting.pop(0) if waiting else f"▁filler{at}"))
    kinds = [gguf.TokenType.NORMAL] * size
    kinds[0] = gguf.TokenType.UNKNOWN
    kinds[1] = kinds[2] = gguf.TokenType.CONTROL
    kinds[3:259] = [gguf.TokenType.BYTE] * 256
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    # Longer pieces come first, as in a trained vocabulary.
    writer.add_token_scores([float(len(token)) for token in tokens])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)


def _words(writer: gguf.GGUFWriter) -> int:
    """The vocabulary of the shipped models."""
    from adyton_models.export import _write_tokenizer  # noqa: PLC0415 - needs torch
    from adyton_models.tokenizer import Tokenizer  # noqa: PLC0415

    tokenizer = Tokenizer()
    _write_tokenizer(writer, tokenizer)
    return len(tokenizer)


# --- Weights ----------------------------------------------------------------------------------------------


def _write(path: Path, vocabulary: Callable[[gguf.GGUFWriter], int], template: str | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(str(path), "llama")
    n_vocab = vocabulary(writer)
    heads, layers, inner = WIDTH // HEAD_WIDTH, 2, 2 * WIDTH
    writer.add_context_length(1024)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(HEAD_WIDTH)
    writer.add_layer_norm_rms_eps(1e-5)
    if template is not None:
        writer.add_chat_template(template)

    def matrix(name: str, rows: int, columns: int, scale: float) -> None:
        kind = gguf.GGMLQuantizationType.Q8_0
        data = (rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(scale)).astype(np.float32)
        writer.add_tensor(name, quantize(data, kind), raw_dtype=kind)

    matrix("token_embd.weight", n_vocab, WIDTH, 0.2)
    for layer in range(layers):
        prefix = f"blk.{layer}."
        writer.add_tensor(prefix + "attn_norm.weight", np.ones(WIDTH, dtype=np.float32))
        writer.add_tensor(prefix + "ffn_norm.weight", np.ones(WIDTH, dtype=np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"{prefix}{name}.weight", WIDTH, WIDTH, 0.25)
        matrix(prefix + "ffn_gate.weight", inner, WIDTH, 0.2)
        matrix(prefix + "ffn_up.weight", inner, WIDTH, 0.2)
        matrix(prefix + "ffn_down.weight", WIDTH, inner, 0.2)
    # The output matrix is the embedding, which keeps large vocabularies small.
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_head(path: Path, layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """A head file of float32 layers, each weight (outputs, inputs) and bias."""
    writer = gguf.GGUFWriter(str(path), "head")
    for index, (weight, bias) in enumerate(layers):
        writer.add_tensor(f"head.{2 * index}.weight", weight.astype(np.float32))
        writer.add_tensor(f"head.{2 * index}.bias", bias.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_head(sizes: Sequence[int], seed: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Random layers from ``sizes[0]`` inputs on."""
    rng = np.random.default_rng(seed)
    return tuple(
        (
            rng.standard_normal((outputs, inputs)) / np.sqrt(inputs) * 2,
            rng.standard_normal(outputs) * 0.1,
        )
        for inputs, outputs in itertools.pairwise(sizes)
    )


# --- One of each ------------------------------------------------------------------------------------------


def make_scorer(directory: Path, name: str, *, seed: int = 1) -> TinyScorer:
    """A scorer of one of the shipped conventions."""

    def spm(writer: gguf.GGUFWriter) -> int:
        _spm(writer, {387: "▁-", 648: "▁+", 12902: "▁ки"}, 12910)
        return 12910

    def llama3(writer: gguf.GGUFWriter) -> int:
        names = ("begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eot_id")
        _bpe(
            writer,
            "llama-bpe",
            {300 + at: f"<|{text}|>" for at, text in enumerate(names)},
            "<|begin_of_text|>",
            320,
        )
        return 320

    def qwen(writer: gguf.GGUFWriter) -> int:
        _bpe(writer, "qwen2", {300: "<|endoftext|>"}, "<|endoftext|>", 320)
        return 320

    def qwen_math(writer: gguf.GGUFWriter) -> int:
        controls = {
            151643: "<|endoftext|>", 151644: "<|im_start|>", 151645: "<|im_end|>", 151651: "<extra_0>"
        }  # fmt: skip
        _bpe(writer, "qwen2", controls, "<|endoftext|>", 151664)
        return 151664

    vocabulary, template, sizes = {
        "adyton-words-scorer": (_words, None, ()),
        "math-shepherd": (spm, None, ()),
        "rlhflow": (llama3, LLAMA3_TEMPLATE, ()),
        "skywork": (qwen, None, (WIDTH, 1)),
        "qwen2.5-math-prm": (qwen_math, None, (WIDTH, WIDTH, 2)),
    }[name]
    path = directory / f"{name}-{seed}.gguf"
    _write(path, vocabulary, template, seed)
    layers = make_head(sizes, seed) if sizes else ()
    head = directory / f"{name}-{seed}-head.gguf" if layers else None
    if head is not None:
        write_head(head, layers)
    return TinyScorer(name, path, ADAPTERS / f"{name}.toml", head, layers)


def golden_adapter(tiny: TinyScorer, path: Path) -> Path:
    """Write an adapter with golden vectors, which a running enclave demands."""
    from adyton_models.golden import Vector, make_golden, with_golden  # noqa: PLC0415
    from adyton_models.scoring import ScorerRunner  # noqa: PLC0415

    vectors = [
        Vector(problem="the pan has 3 ants", steps=("an ant + an ant", "the answer is 6")),
        Vector(problem="the tin has 4 hens", steps=("the hens = 4", "a hen - a hen")),
    ]
    with ScorerRunner(tiny.path, tiny.adapter, head=tiny.head, n_ctx=256, parallel=4) as runner:
        golden = make_golden(runner, vectors, 0.001)
    path.write_bytes(with_golden(tiny.adapter.read_bytes(), golden))
    return path


CONVENTIONS = ("adyton-words-scorer", "math-shepherd", "rlhflow", "skywork", "qwen2.5-math-prm")


def catalog_entry(scorer: TinyScorer, adapter: Path) -> str:
    """The scorer, one with a head, as the model ``judge`` of a catalog beside its files."""
    pin = scorer.spec().pin
    assert scorer.head is not None
    return f"""
[[model]]
name = "judge"
role = "scorer"
file = "{scorer.path.name}"
content = "{pin.content}"
weights = "{pin.weights}"
license = "CC0-1.0"
n_ctx = 512
adapter = "judge.toml"
adapter_digest = "{sha256_hex(adapter.read_bytes())}"
head = "{scorer.head.name}"
head_digest = "{sha256_hex(scorer.head.read_bytes())}"
"""
