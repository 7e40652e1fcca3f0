"""Writes a tokenizer that transformers read so that transformers gives the tokens that were trained on."""

import json
from pathlib import Path
from typing import Any

ROLES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
SETTINGS = "tokenizer_config.json"


def _plain(read: Any, pad: str, context: int) -> Any:
    """Returns the same tokenizer, of no particular class. A class such as BERT's puts tokens around every text,
    whatever tokenizer.json says, and gives token types, which a GPT-2 would add as words."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    pipeline = json.loads(read.backend_tokenizer.to_str())
    pipeline |= {"post_processor": None, "truncation": None, "padding": None}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(pipeline)),
        **{"pad_token": pad} | {role: str(token) for role in ROLES if (token := getattr(read, role))},
        extra_special_tokens=[str(token) for token in read.extra_special_tokens],
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=min(read.model_max_length, context),
        padding_side=read.padding_side,
        truncation_side=read.truncation_side,
        split_special_tokens=read.split_special_tokens,
        clean_up_tokenization_spaces=read.clean_up_tokenization_spaces,
        chat_template=read.chat_template,
    )


def export_tokenizer(read: Any, folder: Path, context: int, pad: str) -> None:
    """Writes tokenizer.json and settings for up to `context` tokens; `pad`: the token to pad with if none is named."""
    fast = read.is_fast
    (_plain(read, pad, context) if fast else read).save_pretrained(folder)
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    settings |= {"model_input_names": ["input_ids", "attention_mask"]}
    if fast:
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name that every transformers knows
    else:
        settings = {"pad_token": pad, "model_max_length": context} | settings
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    (folder / SETTINGS).write_text(text, encoding="utf-8")
