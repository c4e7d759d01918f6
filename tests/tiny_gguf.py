# SPDX-License-Identifier: Apache-2.0
"""Makes a small Llama GGUF with random weights and a byte-level tokenizer; a fraction of a second, no torch."""

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf.quants import quantize

from adyton_models.model_files import pin_of
from adyton_protocol.model_identity import ModelPin

CONTROLS = ("<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
MERGES = (
    "t h",
    "th e",
    "i n",
    "a n",
    "e r",
    "o n",
    "Ġ a",
    "Ġ the",
    "Ġ in",
    "an d",
    "Ġ and",
    "r e",
    "Ġ o",
    "o u",
)
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass(frozen=True)
class TinyModel:
    """A GGUF file and what tests want to know about it."""

    path: Path
    pin: ModelPin
    n_vocab: int


def _byte_characters() -> list[str]:
    """GPT-2's printable stand-in for each of the 256 bytes."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {byte: chr(byte) for byte in plain}
    table |= {byte: chr(256 + i) for i, byte in enumerate(b for b in range(256) if b not in table)}
    return [table[byte] for byte in range(256)]


def make_tiny_gguf(
    path: Path,
    *,
    quantization: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q8_0,
    seed: int = 0,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    n_ctx: int = 1024,
    ends: bool = False,
    head: int = 32,
    more_tokens: int = 0,
    broken: bool = False,
    template: str | None = TEMPLATE,
    controls: tuple[str, ...] = (),
    marks: tuple[str, ...] = (),
    window: int = 0,
) -> TinyModel:
    """Write the file.

    With a ``window`` it is a Gemma 2, every other of whose layers sees only so many tokens.

    ``controls`` are further control tokens, ``marks`` user-defined ones. Without ``ends`` the model never draws one of
    the usual control tokens, so answers run to their limit. With ``broken`` all logits are NaN.
    ``more_tokens`` fills the vocabulary up with words that no text needs.
    """
    rng = np.random.default_rng(seed)
    tokens = [
        *CONTROLS,
        *_byte_characters(),
        *(merge.replace(" ", "") for merge in MERGES),
        *(f"filler{number}" for number in range(more_tokens)),
        *controls,
        *marks,
    ]
    n_vocab = len(tokens)
    inner = 2 * width
    writer = gguf.GGUFWriter(str(path), "gemma2" if window else "llama")
    if window:
        writer.add_sliding_window(window)
    writer.add_name("tiny")
    writer.add_context_length(n_ctx)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(n_vocab)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL] * len(CONTROLS)
        + [gguf.TokenType.NORMAL] * (n_vocab - len(CONTROLS) - len(controls) - len(marks))
        + [gguf.TokenType.CONTROL] * len(controls)
        + [gguf.TokenType.USER_DEFINED] * len(marks)
    )
    writer.add_token_merges(list(MERGES))
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(True)
    if template is not None:
        writer.add_chat_template(template)

    def matrix(name: str, rows: int, columns: int, scale: float) -> None:
        data = (rng.standard_normal((rows, columns)) * scale).astype(np.float32)
        if name == "token_embd.weight":
            # A channel that no layer writes to and every token carries: the output matrix can rely on it.
            data[:, 0] = 2.0
        if name.endswith(("attn_output.weight", "ffn_down.weight")):
            data[0] = 0.0
        if name == "output.weight" and not ends:
            data[: len(CONTROLS), 0] = -20.0
        if quantization == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(name, data)
        else:
            writer.add_tensor(name, quantize(data, quantization), raw_dtype=quantization)

    matrix("token_embd.weight", n_vocab, width, 1.0)
    for layer in range(layers):
        prefix = f"blk.{layer}."
        writer.add_tensor(prefix + "attn_norm.weight", np.ones(width, dtype=np.float32))
        writer.add_tensor(prefix + "ffn_norm.weight", np.ones(width, dtype=np.float32))
        if window:
            for norm in ("post_attention_norm", "post_ffw_norm"):
                writer.add_tensor(f"{prefix}{norm}.weight", np.ones(width, dtype=np.float32))
        matrix(prefix + "attn_q.weight", heads * head, width, 0.3)
        matrix(prefix + "attn_k.weight", kv_heads * head, width, 0.3)
        matrix(prefix + "attn_v.weight", kv_heads * head, width, 0.2)
        matrix(prefix + "attn_output.weight", width, heads * head, 0.1)
        matrix(prefix + "ffn_gate.weight", inner, width, 0.15)
        matrix(prefix + "ffn_up.weight", inner, width, 0.15)
        matrix(prefix + "ffn_down.weight", width, inner, 0.1)
    writer.add_tensor("output_norm.weight", np.full(width, np.nan if broken else 1.0, dtype=np.float32))
    if not window:  # Gemma's output matrix is its embedding
        matrix("output.weight", n_vocab, width, 0.3)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return TinyModel(path=path, pin=pin_of(path), n_vocab=n_vocab)
