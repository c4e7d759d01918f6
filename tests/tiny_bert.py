# SPDX-License-Identifier: Apache-2.0
"""Makes a small BERT GGUF with random weights and a word-piece vocabulary: an encoder without a KV cache."""

from pathlib import Path

import gguf
import numpy as np
from tiny_gguf import TinyModel

from adyton_models.model_files import pin_of

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
CLS, SEP = 2, 3


def make_tiny_bert(
    path: Path,
    *,
    pooling: gguf.PoolingType | None = gguf.PoolingType.CLS,
    width: int = 64,
    layers: int = 2,
    heads: int = 2,
    n_ctx: int = 256,
) -> TinyModel:
    """Write the file; weights are F32, as encoders' often are."""
    rng = np.random.default_rng(0)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*SPECIALS, *("▁" + letter for letter in letters), *letters]
    writer = gguf.GGUFWriter(str(path), "bert")
    writer.add_name("tiny bert")
    writer.add_context_length(n_ctx)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(2 * width)
    writer.add_head_count(heads)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    if pooling is not None:
        writer.add_pooling_type(pooling)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL] * len(SPECIALS) + [gguf.TokenType.NORMAL] * (len(tokens) - len(SPECIALS))
    )
    writer.add_token_type_count(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_uint32("tokenizer.ggml.cls_token_id", CLS)
    writer.add_bos_token_id(CLS)
    writer.add_sep_token_id(SEP)

    def tensor(name: str, *shape: int, scale: float = 0.3) -> None:
        writer.add_tensor(name, (rng.standard_normal(shape) * scale).astype(np.float32))

    def norm(name: str) -> None:
        writer.add_tensor(name + ".weight", np.ones(width, dtype=np.float32))
        writer.add_tensor(name + ".bias", np.zeros(width, dtype=np.float32))

    tensor("token_embd.weight", len(tokens), width, scale=1.0)
    tensor("position_embd.weight", n_ctx, width)
    tensor("token_types.weight", 2, width)
    norm("token_embd_norm")
    for layer in range(layers):
        prefix = f"blk.{layer}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensor(f"{prefix}{name}.weight", width, width)
            tensor(f"{prefix}{name}.bias", width)
        norm(prefix + "attn_output_norm")
        tensor(prefix + "ffn_up.weight", 2 * width, width)
        tensor(prefix + "ffn_up.bias", 2 * width)
        tensor(prefix + "ffn_down.weight", width, 2 * width)
        tensor(prefix + "ffn_down.bias", width)
        norm(prefix + "layer_output_norm")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return TinyModel(path=path, pin=pin_of(path), n_vocab=len(tokens))
