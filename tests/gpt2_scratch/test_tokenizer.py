"""The offline tokenizer against Hugging Face's, and its guard on the two files."""

import random
import re
import shutil

import pytest
import transformers
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

from gpt2_scratch import tokenizer
from gpt2_scratch.sources import ASSETS
from gpt2_scratch.tokenizer import END_OF_TEXT, GPT2, encoding

TEXTS = [
    "",
    " ",
    "Hello, world!",
    "a\n\n b\t c",
    "naïve café — 東京 🙂",
    "<|endoftext|>",
    "don't I'll 1234567",
    "x" * 300,
]


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    shutil.copyfile(ASSETS / "encoder.json", folder / "vocab.json")
    shutil.copyfile(ASSETS / "vocab.bpe", folder / "merges.txt")
    return transformers.GPT2Tokenizer.from_pretrained(folder)


def random_texts(count):
    rng = random.Random(0)
    alphabet = "abc XYZ\n\t.,!?'0123éß中🙂"
    return ["".join(rng.choices(alphabet, k=rng.randint(1, 60))) for _ in range(count)]


def test_tokens_equal_hugging_faces(hugging_face):
    for text in [*TEXTS, *random_texts(300)]:
        if "<|endoftext|>" not in text:
            assert GPT2.encode(text) == hugging_face.encode(text)


def test_decoding_gives_the_text_back():
    for text in [*TEXTS, *random_texts(300)]:
        assert GPT2.decode(GPT2.encode(text)) == text


def test_the_end_of_text_marker_in_a_text_is_ordinary_text():
    assert END_OF_TEXT not in GPT2.encode("before <|endoftext|> after")
    assert GPT2.decode([END_OF_TEXT]) == "<|endoftext|>"


@pytest.mark.parametrize("space", [" ", "\u00a0\n"])
@pytest.mark.parametrize("reading", ["text", "tokens"])
def test_a_million_characters_of_white_space_are_encoded(space, reading):
    run = space * (1_000_000 // len(space) + 1)
    texts = [f"x{run}y", f"x{run}!<|endoftext|>{run}<|endoftext|>", run]
    for text, tokens in zip(texts, GPT2.reading(reading).encode_few(texts), strict=True):
        assert GPT2.decode(tokens) == text


def test_long_white_space_is_cut_where_tiktokens_pattern_cuts_it(monkeypatch):
    """Characters 1C to 1F are white space to Python and none to tiktoken."""
    monkeypatch.setattr(tokenizer, "LONG", 3)
    monkeypatch.setattr(tokenizer, "LONG_SPACE", re.compile(tokenizer.LONG_SPACE.pattern.replace("100000", "3")))
    rng, alphabet = (
        random.Random(0),
        [*"a1!' ", "\n", "\t", "\u00a0", "\u2003", "\u3000", "\x85", "\x1c", "\x1f", "'s", "é"],
    )
    parts = 0
    for _ in range(5000):
        text = "".join(rng.choice(alphabet) * rng.choice((1, 1, 2, 5)) for _ in range(rng.randint(1, 9)))
        text += rng.choice(("", "", "<|endoftext|>" + text))
        parts += len(tokenizer.LONG_SPACE.split(text))
        assert GPT2.encode(text) == encoding().encode_ordinary(text)
        assert GPT2.reading("tokens").encode(text) == encoding().encode(text, allowed_special="all")
    assert parts > 10_000


@pytest.mark.parametrize("name", ["vocab.bpe", "encoder.json"])
def test_a_changed_file_is_refused(name, tmp_path):
    for file in ("vocab.bpe", "encoder.json"):
        shutil.copyfile(ASSETS / file, tmp_path / file)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + b" ")
    with pytest.raises(ValueError, match=name):
        encoding(tmp_path)


def test_the_ranks_are_those_that_tiktoken_reads_from_the_two_files(monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")  # else it copies them
    files = (str(ASSETS / name) for name in ("vocab.bpe", "encoder.json"))
    assert encoding()._mergeable_ranks == data_gym_to_mergeable_bpe_ranks(*files)


def test_a_text_cut_anywhere_ends_on_a_whole_character_and_has_no_more_tokens_when_encoded_again():
    texts = ["Straße 東京都は雨です。", "👩‍👩‍👧 🙂🙂", "नमस्ते दुनिया", "a  \n\n  b\t c", "x�� y", *random_texts(60)]
    dropped = 0
    for text in texts:
        tokens = GPT2.encode(text)
        for length in range(len(tokens) + 1):
            kept = GPT2.whole_characters(tokens[:length])
            dropped += length - len(kept)
            assert text.startswith(GPT2.decode(kept)) and kept == tokens[: len(kept)]
            again = GPT2.encode(GPT2.decode(kept))
            assert again == kept or (GPT2.decode(kept)[-1:].isspace() and len(again) < len(kept))
            assert length - len(kept) < 4  # a character has four bytes at most
    assert dropped > 50
