"""The tokenizer in a base's folder, read by transformers wherever it is not GPT-2's own.

Token ids are those of `AutoTokenizer.from_pretrained(folder)`, without the special tokens that it puts around a text.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.plain_tokenizer import gpt2s_pipeline, is_gpt2s_own, puts_tokens_around, spelling
from gpt2_scratch.sources import BESIDE, BUNDLED, VOCABULARIES, read_json, refuse_pointer
from gpt2_scratch.tokenizer import END_OF_TEXT, ENDS, MARKER, GPT2Tokenizer, Tokenizer, Vocabulary
from gpt2_scratch.tokenizer_export import ROLES, export_tokenizer

FILES = VOCABULARIES + BESIDE
LONGEST_CHARACTER = 4  # bytes
FREE = ("chat_template", "model_max_length", "name_or_path", "padding_side", "truncation_side")
AROUND = "the tokenizer puts special tokens around a text; they are left out in training and in use"
FEWEST = 8  # tokens that any vocabulary has; from files that it does not know, transformers makes an empty one


def _read(folder: Path) -> Any:
    """Returns the tokenizer that transformers reads from the folder, with two mistakes corrected.

    transformers reads a GPT-2's folder that names no class as GPT-2 splits texts, whatever tokenizer.json says; and its
    GPT-2 class adds an end of text, which no model knows, to a vocabulary that has none.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.models.gpt2.tokenization_gpt2 import GPT2Tokenizer as ByteLevel

    settings = read_json(folder / "tokenizer_config.json")
    kind = settings.get("tokenizer_class") or read_json(folder / "config.json").get("tokenizer_class")
    content = read_json(folder / "tokenizer.json")
    model = content.get("model") or {}
    if kind is None and content and not gpt2s_pipeline(content):
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    read = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if isinstance(read, ByteLevel):
        known = {*read_json(folder / "vocab.json"), *read_json(folder / "added_tokens.json")}
        known |= {*(model.get("vocab") or ())}
        known |= {token["content"] for token in content.get("added_tokens") or ()}
        known |= {spelling(token) for token in (settings.get("added_tokens_decoder") or {}).values()}
        named = {**read_json(folder / "special_tokens_map.json"), **settings}
        missing = {role: None for role in ROLES[:3] if MARKER not in known and not named.get(role)}
        if missing:
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **missing)
    return read


def _digest(folder: Path) -> str:
    """Returns sha256 of the files and settings that decide the tokens of a text."""
    settings = {name: value for name, value in read_json(folder / "tokenizer_config.json").items() if name not in FREE}
    found = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in (*VOCABULARIES, "merges.txt", "added_tokens.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            found.update(name.encode() + (folder / name).read_bytes())
    return found.hexdigest()


def _special(read: Any) -> dict[str, int]:
    return {token.content: id for id, token in read.added_tokens_decoder.items() if token.special}


def _end_of(read: Any, configured: Any) -> tuple[int | None, str]:
    """Returns the token that ends a text, and why the one `configured` in config.json is not it, if that was unusable.

    It is the tokenizer's own, else that of config.json. But a model that was trained from scratch may have GPT-2's
    50256 there, whatever word of its vocabulary that is; then it is the known spelling of an end, if there is just one.
    """
    if read.eos_token_id is not None:
        return read.eos_token_id, ""
    ids, special = read.get_vocab(), {*_special(read).values()}
    spelled = {id: token for token, id in ids.items()}
    known = [token for token in ENDS if token in ids]
    for id in configured if isinstance(configured, list) else [configured]:
        if type(id) is int and id in spelled and (id in special or spelled[id] in (*ENDS, "[SEP]")):
            return id, ""
    why = f" (config.json has {configured!r}, which ends no text of this vocabulary)" if configured is not None else ""
    return ids[known[0]] if len(known) == 1 else None, why


class OwnTokenizer(Tokenizer):
    """The tokenizer in `folder`. `configured` is config.json's end of text, for a tokenizer that has none."""

    def __init__(self, folder: Path, read: Any, configured: Any) -> None:
        self.read, self.special = read, _special(read)
        end, why = _end_of(read, configured)
        self.vocabulary = Vocabulary(max(read.get_vocab().values()) + 1, end)
        self.sha256 = _digest(folder)
        spelled = "none" if end is None else repr(read.convert_ids_to_tokens(end))
        what = f"{self.vocabulary.size:,} tokens, end of text {spelled}{why}"
        self.notes = [f"texts are read with the model's own tokenizer: {what}"]
        if len(read("a")["input_ids"]) > len(self.encode_few(["a"])[0]):
            self.notes.append(AROUND)
        content = read_json(folder / "tokenizer.json")
        if type(read).__name__.startswith("GPT2Tokenizer") and content and not gpt2s_pipeline(content):
            self.notes.append(
                "tokenizer_config.json names GPT-2's class, with which transformers ignores how tokenizer.json splits "
                'texts; if that is wrong, write "tokenizer_class": "PreTrainedTokenizerFast" there'
            )

    @property
    def pad(self) -> int:
        """The tokenizer's own padding token, else the end of text, else a special token that ends no text."""
        if self.read.pad_token_id is not None:
            return self.read.pad_token_id
        named = sorted(self.special.items(), key=lambda item: ("pad" not in item[0].lower(), item[1]))
        free = [id for text, id in named if text != self.read.unk_token and "unk" not in text.lower()]
        return free[0] if self.vocabulary.end is None and free else self.empty

    def encode_few(self, texts: Sequence[str]) -> list[list[int]]:
        clean = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts]
        split = self.meaning == "text"
        return self.read(clean, add_special_tokens=False, split_special_tokens=split, verbose=False)["input_ids"]

    def decode(self, tokens: Sequence[int]) -> str:
        return self.read.decode(list(tokens), skip_special_tokens=False)

    def whole_characters(self, tokens: Sequence[int]) -> list[int]:
        """Drops the last few tokens if the text then no longer ends with U+FFFD; else that is part of the text."""
        ends = range(len(tokens), max(len(tokens) - LONGEST_CHARACTER, -1), -1)
        whole = (
            end for end in ends if not self.decode(tokens[max(end - 2 * LONGEST_CHARACTER, 0) : end]).endswith("\ufffd")
        )
        return list(tokens[: next(whole, len(tokens))])

    def pieces(self, tokens: Sequence[int]) -> list[tuple[str, int]]:
        """Returns what the text so far grows by, because a token may change how the one before it is written."""
        found, done, start = list[tuple[str, int]](), "", 0
        for i in range(1, len(tokens) + 1):
            text = self.read.decode(list(tokens[:i]), skip_special_tokens=False, clean_up_tokenization_spaces=False)
            if not text.endswith("\ufffd") or i == len(tokens):
                found.append((text[len(done) :], i - start))
                done, start = text, i
        return found

    def save(self, folder: Path, context: int) -> None:
        export_tokenizer(self.read, folder, context, self.read.convert_ids_to_tokens(self.pad))


def _read_or_explain(folder: Path, at: str) -> Any:
    from transformers.utils import logging

    logging.set_verbosity_error()  # it warns of what a base's config.json leaves to defaults
    remedy = "save it with transformers' AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER): tokenizer.json"
    try:
        read = _read(folder)
    except Exception as error:  # tokenizers raises nothing more special
        reason = " ".join(str(error).split())[:90]
        if any(folder.glob("*.model")):
            reason, remedy = "a sentencepiece file", f"pip install sentencepiece protobuf, or {remedy}"
        raise ValueError(f"{at} its tokenizer cannot be read ({reason}); {remedy}") from error
    if len(read.get_vocab()) < FEWEST:
        kind = 'if it is BERT\'s, write "tokenizer_class": "BertTokenizer" into tokenizer_config.json; else '
        raise ValueError(f"{at} transformers finds no vocabulary in its tokenizer files; {kind}{remedy}")
    return read


def _with_stops(tokenizer: Tokenizer, folder: Path) -> None:
    """Gives the tokenizer the further tokens at which transformers ends an answer, and a note of them. A single
    ordinary word is none of them: it is GPT-2's 50256 in a vocabulary of its own."""
    listed = (read_json(folder / "config.json") | read_json(folder / "generation_config.json")).get("eos_token_id")
    ids, vocabulary = listed if isinstance(listed, list) else [listed], tokenizer.vocabulary
    known = [id for id in ids if type(id) is int and 0 <= id < vocabulary.size and id != vocabulary.end]
    stops = {id: tokenizer.decode([id]) for id in known}
    texts = [*stops.values()]
    if stops and (len(ids) > 1 or texts[0] in (*tokenizer.special, *ENDS)):
        tokenizer.vocabulary = vocabulary._replace(stops=frozenset(stops))
        spelled = ", ".join(map(repr, texts[:4])) + " ..." * (len(texts) > 4)
        tokenizer.notes = [*tokenizer.notes, f"an answer ends at {spelled} too (eos_token_id)"]


def find_tokenizer(folder: Path, config: GPT2Config, asked: str = "--model") -> Tokenizer:
    """Returns the tokenizer of the base in `folder`: GPT-2's own if nothing there says otherwise.

    Raises ValueError, naming the flag `asked`, when it cannot be read or has more tokens than the model.
    """
    at = f"{asked} {folder}:"
    for name in FILES:
        refuse_pointer(folder / name)
    try:
        plain = is_gpt2s_own(folder)
        around = [AROUND] * (plain and puts_tokens_around(folder))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{at} its tokenizer files do not have the form that transformers writes ({error}); copy or download them "
            "again"
        ) from error
    if plain or not has_tokenizer(folder):
        if config.vocabulary <= END_OF_TEXT:
            raise ValueError(
                f"{at} the model has {config.vocabulary:,} tokens, GPT-2's tokenizer {END_OF_TEXT + 1:,}; put the "
                "model's own tokenizer files into the folder (tokenizer.json, or vocab.json and merges.txt)"
            )
        known = has_tokenizer(folder) or folder in BUNDLED.values()
        unknown = [f"{folder} has no tokenizer files: texts are read with GPT-2's own"]
        settings = read_json(folder / "tokenizer_config.json")
        own = GPT2Tokenizer(template_in(folder, settings))
        own.notes = [*around, *(() if known else unknown)]
        _with_stops(own, folder)
        return own
    found = OwnTokenizer(folder, _read_or_explain(folder, at), read_json(folder / "config.json").get("eos_token_id"))
    if found.vocabulary.size > config.vocabulary:
        raise ValueError(
            f"{at} its tokenizer has {found.vocabulary.size:,} tokens, the model {config.vocabulary:,}; copy the "
            "tokenizer that belongs to these weights, or resize the embeddings to it (transformers' "
            "resize_token_embeddings)"
        )
    _with_stops(found, folder)
    return found


def template_in(folder: Path, settings: Mapping[str, Any]) -> Any:
    """Returns the chat template of the folder, None without one."""
    file = folder / "chat_template.jinja"
    return file.read_text(encoding="utf-8") if file.is_file() else settings.get("chat_template")


def has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in VOCABULARIES)


def needed_end(tokenizer: Tokenizer, source: str, asked: str = "--model") -> int:
    """Returns the token that ends a text. Raises ValueError when the base has none."""
    if tokenizer.vocabulary.end is None:
        raise ValueError(
            f"{asked} {source}: neither its tokenizer nor its config.json says which token ends a text; name one in "
            'tokenizer_config.json, for example "eos_token": "[SEP]", or as "eos_token_id" in config.json'
        )
    return tokenizer.vocabulary.end
