# SPDX-License-Identifier: Apache-2.0
"""From a training checkpoint to one GGUF file for llama.cpp: weights, tokenizer and chat template.

The same checkpoint always gives the same bytes. Needs the `train` extra (torch, gguf).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray

from adyton_models.tokenizer import BEGIN, END, PADDING, SPECIAL_TOKENS, Tokenizer
from adyton_models.training.architecture import NORM_EPSILON, ROPE_BASE, Shape

CHAT_TEMPLATE = (
    "{%- set last = namespace(user=0) -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}{%- set last.user = loop.index0 -%}{%- endif -%}"
    "{%- endfor -%}"
    "{{- bos_token -}}"
    "{%- for message in messages[last.user:] -%}"
    "{%- if message['content'] is string -%}{%- set text = message['content'] -%}"
    "{%- else -%}"
    "{%- set text = message['content'] | default([], true) | map(attribute='text') | join(' ') -%}"
    "{%- endif -%}"
    "{%- if message['role'] == 'user' -%}{{- '<|user|> ' + text.split() | join(' ') -}}"
    "{%- elif message['role'] == 'assistant' -%}{{- '<|assistant|> ' + text | trim + eos_token -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
"""The model solves one problem at a time, so it is shown the last user message alone (and what follows
it): earlier turns and system messages are accepted and left out. White space is normalised, because the
vocabulary's words carry their leading space. No space follows the assistant's token: every line of a
solution begins with one."""

QUANTISATIONS = {
    "F16": gguf.GGMLQuantizationType.F16,
    "Q8_0": gguf.GGMLQuantizationType.Q8_0,
    "Q4_0": gguf.GGMLQuantizationType.Q4_0,
}
_FILE_TYPES = {
    "F16": gguf.LlamaFileType.MOSTLY_F16,
    "Q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "Q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
}
_LAYER_TENSORS = {
    "attention_norm": "attn_norm",
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "attention_out": "attn_output",
    "feed_forward_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What the file says about itself."""

    name: str
    description: str
    license: str = "apache-2.0"


def interleave_rotary(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Reorder the rows of a query or key projection from halves (PyTorch here) to pairs (llama.cpp)."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def read_checkpoint(path: Path) -> tuple[Shape, dict[str, torch.Tensor], dict[str, Any]]:
    """Shape, weights and progress of a checkpoint (our own file; loading it executes no code)."""
    saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return Shape(**saved["shape"]), saved["model"], saved["progress"]


def _tensors(shape: Shape, weights: dict[str, torch.Tensor]) -> list[tuple[str, NDArray[np.float32]]]:
    tensors = [("token_embd.weight", weights["embedding.weight"].float().numpy())]
    for layer in range(shape.layers):
        for ours, theirs in _LAYER_TENSORS.items():
            array = weights[f"blocks.{layer}.{ours}.weight"].float().numpy()
            if ours in {"query", "key"}:
                array = interleave_rotary(array, shape.heads)
            tensors.append((f"blk.{layer}.{theirs}.weight", array))
    tensors.append(("output_norm.weight", weights["final_norm.weight"].float().numpy()))
    return tensors


def _write_hyperparameters(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_context_length(shape.positions)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(NORM_EPSILON)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(ROPE_BASE)


def _write_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    kinds = [
        gguf.TokenType.CONTROL
        if piece in SPECIAL_TOKENS
        else gguf.TokenType.UNUSED
        if piece.startswith("<|spare")
        else gguf.TokenType.NORMAL
        for piece in tokenizer.pieces
    ]
    writer.add_vocab_size(len(tokenizer))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(list(tokenizer.pieces))
    writer.add_token_types(kinds)
    writer.add_token_merges([f"{left} {right}" for left, right in tokenizer.merges])
    writer.add_bos_token_id(tokenizer.ids[BEGIN])
    writer.add_eos_token_id(tokenizer.ids[END])
    writer.add_pad_token_id(tokenizer.ids[PADDING])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def export_gguf(checkpoint: Path, out: Path, *, quantisation: str, labels: Labels) -> None:
    """Write `out` from a checkpoint; matrices in `quantisation` (a key of QUANTISATIONS), norms in F32."""
    shape, weights, _ = read_checkpoint(checkpoint)
    tokenizer = Tokenizer()
    if tokenizer.trained != shape.vocabulary:
        raise ValueError("the checkpoint was trained with another vocabulary")
    unseen = len(tokenizer) - tokenizer.trained
    trained_rows = weights["embedding.weight"]
    spare_rows = trained_rows[tokenizer.spare].expand(unseen, shape.width)
    weights = {**weights, "embedding.weight": torch.cat([trained_rows, spare_rows])}
    kind = QUANTISATIONS[quantisation]
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_name(labels.name)
    writer.add_description(labels.description)
    writer.add_license(labels.license)
    writer.add_file_type(_FILE_TYPES[quantisation])
    _write_hyperparameters(writer, shape)
    _write_tokenizer(writer, tokenizer)
    for name, array in _tensors(shape, weights):
        if array.ndim == 1:
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


__all__ = ["CHAT_TEMPLATE", "QUANTISATIONS", "Labels", "export_gguf", "interleave_rotary", "read_checkpoint"]
