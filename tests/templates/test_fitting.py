"""Texts are cut only where they must be, the longest first, and never beyond what fits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from llmrank.templates.fitting import SHORTEST, fit, water_level
from llmrank.tokens import CountedTokens, EstimatedTokens

sizes = st.lists(st.integers(0, 500), max_size=30)


@given(sizes, st.integers(-10, 3000))
def test_the_water_level_is_the_highest_that_fits(sizes: list[int], room: int) -> None:
    level = water_level(sizes, room)
    if level is None:
        assert sum(sizes) <= room
    else:
        assert sum(min(size, level) for size in sizes) <= max(0, room)
        assert sum(min(size, level + 1) for size in sizes) > room


def test_short_texts_stay_whole_when_a_long_one_is_cut() -> None:
    counter = EstimatedTokens()
    texts = ["a short one", "another short one", "long " * 1000]
    fitted = fit(texts, [counter.count(t) for t in texts], 200, counter)
    assert fitted is not None
    assert fitted[:2] == texts[:2]
    assert texts[2].startswith(fitted[2])
    assert 150 < sum(map(counter.count, fitted)) <= 200


def test_what_would_leave_too_little_of_each_text_does_not_fit() -> None:
    texts = ["word " * 50] * 100
    assert fit(texts, [100] * 100, 100 * SHORTEST - 1, EstimatedTokens()) is None
    assert fit(texts, [100] * 100, -5, EstimatedTokens()) is None


@given(st.text(max_size=400), st.integers(0, 100))
def test_an_estimated_cut_is_a_beginning_within_its_tokens(text: str, tokens: int) -> None:
    counter = EstimatedTokens()
    cut = counter.cut(text, tokens)
    assert text.startswith(cut)
    assert counter.count(cut) <= tokens
    if counter.count(text) <= tokens:
        assert cut == text


def test_estimates_err_on_the_side_of_room_for_english_and_for_other_scripts() -> None:
    counter = EstimatedTokens()
    assert counter.count("The quick brown fox jumps over the lazy dog. ") >= 11  # 10 tokens in today's vocabularies
    assert counter.count("狐狸跳过了懒狗") >= 7


@given(st.lists(st.sampled_from(["one", "two", "three", "four"]), max_size=60), st.integers(0, 40))
def test_a_models_own_tokeniser_cuts_where_its_tokens_end(words: list[str], tokens: int) -> None:
    vocabulary = {word: i for i, word in enumerate(["[UNK]", "one", "two", "three", "four"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    counter = CountedTokens(tokenizer)
    text = " ".join(words)
    assert counter.count(text) == len(words)
    assert counter.cut(text, tokens) == " ".join(words[:tokens])
