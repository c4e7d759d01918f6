# SPDX-License-Identifier: Apache-2.0
"""A model as the API sees it: name, identity, tokenizer, chat template, defaults. No KV cache."""

from collections.abc import Mapping, Sequence

from adyton_enclave.engine.chat_template import ChatTemplate
from adyton_enclave.engine.dialect import MARKS, find_dialect
from adyton_enclave.engine.grammar import GrammarCompiler
from adyton_enclave.engine.invariance import why_inexact
from adyton_enclave.engine.llama import LlamaModel
from adyton_enclave.engine.request import Constraint
from adyton_enclave.engine.settings import EngineConfig, ModelSpec
from adyton_enclave.weights.model_file import ModelFile
from adyton_protocol.digests import Digest
from adyton_protocol.errors import ConfigError, ContextOverflow, InvalidRequest
from adyton_protocol.model_identity import CacheProfile, SamplingDefaults, model_identity
from adyton_protocol.sealed_model import ModelKey


class LoadedModel:
    """A loaded model. Every method may be called from any thread.

    Attributes:
        name: As callers write it.
        content: Digest of what the files hold, however it is run.
        identity: One digest over everything that can change an answer: what the files hold (weights, tokenizer,
            chat template, quantisation), context length, KV types, sampling defaults, a scorer's adapter and head.
        n_ctx: Most tokens of prompt and answer together.
        n_vocab: Size of the vocabulary.
        n_params: Numbers in its tensors, the embedding of tokens included.
        generates: Whether it answers.
        scores: Whether it judges answers.
        hidden_width: Length of the hidden states that evaluations can report; 0 when they can report none.
        embedding_width: Length of its vectors; 0 when it makes none.
        dialect: How the model marks tool calls and reasoning.
        defaults: Sampling for requests that leave it out.
        why_inexact: Why the same request may get other logits next time; None when it cannot.
    """

    def __init__(self, spec: ModelSpec, config: EngineConfig, key: ModelKey | None = None) -> None:
        """Load the verified files.

        Args:
            spec: What to load.
            config: How to compute with it.
            key: Of a sealed model.

        Raises:
            ModelFileError: See :class:`LlamaModel`; or the model is sealed, and this is not its key.
            ConfigError: See :class:`LlamaModel`; or ``n_ctx`` exceeds what the model or the KV cache can do; or
                the engine cannot keep the model's past; or answers cannot be reproduced though the configuration
                requires it.
        """
        with ModelFile.open((spec.path, *spec.more_paths), spec.pin, key=key, terms=spec.sealed) as file:
            self.llama = LlamaModel(file, spec.pin, batch_invariant=config.batch_invariant)
        limit = min(self.llama.n_ctx_train, config.n_ctx_total) if spec.decodes else self.llama.n_ctx_train
        if not 1 < spec.n_ctx <= limit:
            self.llama.close()
            raise ConfigError(
                f"model {spec.name!r}: n_ctx must lie between 2 and the smaller of the model's "
                f"{self.llama.n_ctx_train} and engine.n_ctx_total, {config.n_ctx_total}"
            )
        if spec.decodes and (reason := self.llama.why_not_generate) is not None:
            self.llama.close()
            raise ConfigError(f"model {spec.name!r} cannot be served for generation: {reason}")
        self.why_inexact = why_inexact(self.llama.weights, config)
        if config.require_reproducible and self.why_inexact is not None:
            self.llama.close()
            raise ConfigError(
                f"model {spec.name!r} is not reproducible, which engine.require_reproducible demands: "
                f"{self.why_inexact}"
            )
        # Made now, so that no request pays for it.
        self._pieces = self.llama.pieces
        self._longest_piece_bytes = max(map(len, self._pieces))
        self.name = spec.name
        self.n_ctx = spec.n_ctx
        self.n_vocab = self.llama.n_vocab
        self.n_params = self.llama.n_params
        self.generates = spec.generates
        self.scores = spec.scorer is not None
        self.hidden_width = self.llama.width if spec.hidden_states else 0
        self.embedding_width = self.llama.width if spec.embeddings else 0
        self.defaults = spec.sampling
        self.content = spec.pin.content
        self.identity = identity_of(spec, config)
        source = self.llama.chat_template
        controls = self.llama.control_tokens
        self.dialect = find_dialect(
            source, controls, frozenset(self.llama.token_ids_of(MARKS - controls.keys()))
        )
        self._grammars = GrammarCompiler(self.llama)
        self._template = None if source is None else ChatTemplate(source, self.llama)

    def tokenize(self, text: str, parse_special: bool = False, *, add_special: bool = True) -> list[int]:  # noqa: FBT001, FBT002
        """Token ids of a prompt, with the beginning-of-text token where the vocabulary wants one.

        Args:
            text: Attacker-controlled.
            parse_special: SECURITY: leave off for text of callers, who could write control tokens otherwise.
            add_special: Add beginning and end of text as the vocabulary says.

        Raises:
            ContextOverflow: The text is so long that it cannot fit, whatever its tokens are.
        """
        self.refuse_hopeless(len(text), "prompt")
        return self.llama.tokenize(text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, token_ids: Sequence[int]) -> bytes:
        """Bytes of tokens; control tokens have none."""
        return b"".join(self._pieces[token_id] for token_id in token_ids)

    def spell(self, token_ids: Sequence[int]) -> str:
        """Text of tokens, control tokens spelt out."""
        return "".join(self.llama.token_text(token_id) for token_id in token_ids)

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
        add_generation_prompt: bool = True,
        options: Mapping[str, object] | None = None,
    ) -> list[int]:
        """Token ids of a conversation. No message can forge a control token; see ``chat_template``.

        Raises:
            InvalidRequest: The conversation does not fit the template, or the model has none.
            ContextOverflow: Its texts are so long that they cannot fit, whatever their tokens are.
        """
        if self._template is None:
            raise InvalidRequest("this model has no chat template; use completions", param="messages")
        contents = (message.get("content") for message in messages)
        self.refuse_hopeless(sum(len(text) for text in contents if isinstance(text, str)), "messages")
        return self._template.apply(
            messages, tools=tools, add_generation_prompt=add_generation_prompt, options=options
        )

    def render_trusted(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The text that the chat template makes of a conversation, control tokens spelt out.

        SECURITY: for conversations of the operator's alone. Text of callers could write turns of its own.

        Raises:
            InvalidRequest: The model has no template, or the conversation does not fit it.
        """
        if self._template is None:
            raise InvalidRequest("this model has no chat template", param="messages")
        return self._template.render_trusted(messages)

    async def compile_grammar(self, lark: str, *, param: str) -> Constraint:
        """A constraint for answers of this model; see ``grammar``.

        Raises:
            InvalidRequest: ``param`` is to blame.
        """
        return await self._grammars.compile(lark, param=param)

    def close(self) -> None:
        """Free everything. No context may be left."""
        self._grammars.close()
        self.llama.close()

    def refuse_hopeless(self, characters: int, param: str) -> None:
        """Spare megabytes the tokenizer: a token covers at most so many bytes, and a character has at least one.

        Raises:
            ContextOverflow: A text of so many characters cannot fit, whatever its tokens are; ``param`` is to blame.
        """
        if characters > self.n_ctx * self._longest_piece_bytes:
            raise ContextOverflow(
                f"a text of {characters} characters cannot fit into a context of {self.n_ctx} tokens",
                param=param,
            )


def identity_of(spec: ModelSpec, config: EngineConfig) -> Digest:
    """The identity of a model under a configuration; its file is not looked at."""
    sampling = spec.sampling
    return model_identity(
        content=spec.pin.content,
        n_ctx=spec.n_ctx,
        sampling=SamplingDefaults(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
        ),
        cache=CacheProfile(
            kv_type_k=config.kv_type_k,
            kv_type_v=config.kv_type_v,
            flash_attention=config.flash_attention,
        ),
        scorer=spec.scorer,
    )
