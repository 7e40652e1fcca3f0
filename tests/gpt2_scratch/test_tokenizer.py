"""The offline tokenizer against Hugging Face's, and its guard on the two files."""

import random
import shutil

import pytest
import transformers
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

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
