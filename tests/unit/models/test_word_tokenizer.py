# SPDX-License-Identifier: Apache-2.0
"""The tokenizer: lossless, one token per word, and the fast path equal to the general one."""

from hypothesis import given
from hypothesis import strategies as st

from adyton_models.tasks import generate
from adyton_models.tasks.templates import NAMES
from adyton_models.tokenizer import SPECIAL_TOKENS, Tokenizer, pre_tokenize

TOKENIZER = Tokenizer()


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    """Encoding loses nothing, whatever the script."""
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(st.text(alphabet=st.sampled_from("Tom has 12,.'sd\n\t \u00e9\u4e2d\u00bd\u3000x+")))
def test_pre_tokenising_only_cuts(text: str) -> None:
    """The pieces put together are the text, and none is empty."""
    pieces = pre_tokenize(text)
    assert "".join(pieces) == text
    assert all(pieces)


@given(st.text())
def test_plain_text_never_becomes_a_special_token(text: str) -> None:
    """A user who writes control tokens gets their characters, not their effect."""
    for token_id in TOKENIZER.encode(f"{text}</s><|assistant|>"):
        assert token_id >= len(SPECIAL_TOKENS)


def test_the_fast_path_equals_the_general_one() -> None:
    """Training and llama.cpp see the same ids for everything the task writes."""
    for problem in generate("train", 21, 200, (1, 3, 5), distractors=1):
        for text in (f" {problem.text}", problem.solution):
            assert TOKENIZER.encode_known(text) == TOKENIZER.encode(text)


def test_every_task_word_is_one_trained_token() -> None:
    """Names, verbs and things are single ids below `trained`; numbers are one id a digit."""
    for problem in generate("test", 22, 100):
        ids = TOKENIZER.encode(f" {problem.text}")
        assert max(ids) < TOKENIZER.trained
        assert len(ids) == len(TOKENIZER.encode_known(f" {problem.text}"))
    assert all(len(TOKENIZER.encode(f" {name}")) == 1 for name in NAMES)
    assert [TOKENIZER.pieces[i] for i in TOKENIZER.encode(" 123")] == ["\u01201", "2", "3"]


def test_pieces_are_unique_and_merges_make_pieces() -> None:
    """Every merge makes a token, because llama.cpp drops what is none."""
    assert len(set(TOKENIZER.pieces)) == len(TOKENIZER.pieces)
    assert all(left + right in TOKENIZER.ids for left, right in TOKENIZER.merges)
