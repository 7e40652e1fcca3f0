"""Tells whether the tokenizer files in a base's folder are GPT-2's own, in whatever form."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt2_scratch.sources import ASSETS, VOCABULARIES, read_json
from gpt2_scratch.tokenizer import END_OF_TEXT, MARKER
from gpt2_scratch.tokenizer_export import ROLES

LISTS = ("additional_special_tokens", "extra_special_tokens")
# Classes that read GPT-2's files as GPT-2's tokenizer does.
PLAIN = (None, "GPT2Tokenizer", "GPT2TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")


def spelling(token: Any) -> str:
    """Returns the text of a token, which the files hold as a string or as an object around one."""
    return token.get("content", "") if isinstance(token, dict) else str(token)


def _merges(entries: Sequence[Any]) -> list[str]:
    return [entry if isinstance(entry, str) else " ".join(entry) for entry in entries]


def _gpt2s_bpe(vocabulary: Any, merges: Sequence[str]) -> bool:
    lines = (ASSETS / "vocab.bpe").read_text(encoding="utf-8").splitlines()[1:]
    return vocabulary == read_json(ASSETS / "encoder.json") and list(merges) == lines


def _same_files(folder: Path) -> bool:
    """Whether the folder has GPT-2's vocab.json and merges.txt."""
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if not (vocabulary.is_file() and merges.is_file()):
        return False
    if all(
        a.read_bytes() == (ASSETS / b).read_bytes() for a, b in ((vocabulary, "encoder.json"), (merges, "vocab.bpe"))
    ):
        return True
    lines = merges.read_text(encoding="utf-8").splitlines()
    return _gpt2s_bpe(read_json(vocabulary), [line for line in lines if line and not line.startswith("#version")])


def gpt2s_pipeline(content: dict[str, Any]) -> bool:
    """Whether a tokenizer.json splits texts as GPT-2 does, whatever its vocabulary."""
    model, first = content.get("model") or {}, content.get("pre_tokenizer") or {}
    return (
        model.get("type", "BPE") == "BPE"
        and not (model.get("byte_fallback") or model.get("dropout") or model.get("ignore_merges"))
        and content.get("normalizer") is None
        and (first.get("type"), first.get("add_prefix_space"), first.get("use_regex", True))
        == ("ByteLevel", False, True)
    )


def _same_pipeline(content: dict[str, Any]) -> bool:
    """Whether a tokenizer.json is GPT-2's."""
    model = content.get("model") or {}
    added = {(token["content"], token["id"]) for token in content.get("added_tokens") or ()}
    return (
        gpt2s_pipeline(content)
        and added <= {(MARKER, END_OF_TEXT)}
        and _gpt2s_bpe(model.get("vocab"), _merges(model.get("merges") or ()))
    )


def _tokens_named(settings: dict[str, Any]) -> set[str]:
    """Returns all special tokens that tokenizer_config.json or special_tokens_map.json names."""
    found = [settings[role] for role in ROLES if settings.get(role)]
    for name in LISTS:
        found += list(settings.get(name) or ())
    return {spelling(token) for token in found}


def is_gpt2s_own(folder: Path) -> bool:
    """Whether everything in the folder describes GPT-2's own tokenizer. Raises ValueError for a damaged file."""
    if any((folder / name).exists() for name in VOCABULARIES if not name.endswith(".json")):
        return False
    settings, names = read_json(folder / "tokenizer_config.json"), read_json(folder / "special_tokens_map.json")
    added = {(text, id) for text, id in read_json(folder / "added_tokens.json").items()}
    added |= {(spelling(t), int(id)) for id, t in (settings.get("added_tokens_decoder") or {}).items()}
    kind = settings.get("tokenizer_class") or read_json(folder / "config.json").get("tokenizer_class")
    if not added <= {(MARKER, END_OF_TEXT)} or not _tokens_named(settings) | _tokens_named(names) <= {MARKER}:
        return False
    if kind not in PLAIN or settings.get("add_prefix_space") or settings.get("auto_map"):
        return False
    pipeline = folder / "tokenizer.json"
    return (_same_pipeline(read_json(pipeline)) if pipeline.exists() else True) and (
        _same_files(folder) if (folder / "vocab.json").exists() else pipeline.exists()
    )


def _adds_tokens(post_processor: dict[str, Any]) -> bool:
    return (
        post_processor.get("type") in ("BertProcessing", "RobertaProcessing")
        or any("SpecialToken" in piece for piece in post_processor.get("single") or ())
        or any(map(_adds_tokens, post_processor.get("processors") or ()))
    )


def puts_tokens_around(folder: Path) -> bool:
    """Whether transformers puts special tokens around a text. Raises the errors of `is_gpt2s_own`."""
    settings = read_json(folder / "tokenizer_config.json")
    return bool(settings.get("add_bos_token") or settings.get("add_eos_token")) or _adds_tokens(
        read_json(folder / "tokenizer.json").get("post_processor") or {}
    )
