"""Repositories in the layout that the real ones are published in, small: gpt2, and the four data sets."""

import io
import json

import pyarrow as pa
import torch
from helpers import TEXTS
from hub_server import Repository
from pyarrow import parquet
from safetensors.torch import save
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as Decoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.model import LanguageModel, initialise
from gpt2_scratch.pretrained import hf_state
from gpt2_scratch.sources import ASSETS

README = "---\nlicense: mit\n---\nA copy for tests.\n"
IMDB = """---
configs:
- config_name: plain_text
  default: true
  data_files:
  - split: train
    path: plain_text/train-*
  - split: test
    path: plain_text/test-*
  - split: unsupervised
    path: plain_text/unsupervised-*
dataset_info:
  config_name: plain_text
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': neg
          '1': pos
  splits:
  - name: train
    num_examples: 160
  - name: test
    num_examples: 40
  - name: unsupervised
    num_examples: 100
---
"""


def published_tensors(config: GPT2Config) -> dict[str, torch.Tensor]:
    """Random weights under the keys of openai-community/gpt2: no prefix, no lm_head, with the masks of causality."""
    model = LanguageModel(config)
    initialise(model, torch.Generator().manual_seed(0))
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in hf_state(model).items()}
    tensors.pop("lm_head.weight", None)
    mask = torch.ones(config.context, config.context).tril()[None, None]
    return tensors | {f"h.{i}.attn.bias": mask.clone() for i in range(config.blocks)}


def published_settings(config: GPT2Config) -> dict[str, object]:
    """config.json as openai-community/gpt2 has it."""
    return {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "bos_token_id": 50256,
        "embd_pdrop": 0.1,
        "eos_token_id": 50256,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_ctx": config.context,
        "n_embd": config.width,
        "n_head": config.heads,
        "n_layer": config.blocks,
        "n_positions": config.context,
        "resid_pdrop": 0.1,
        "summary_activation": None,
        "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True,
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        "vocab_size": config.vocabulary,
    }


def tokenizer_files() -> dict[str, bytes]:
    tokenizer = Tokenizer(BPE.from_file(str(ASSETS / "encoder.json"), str(ASSETS / "vocab.bpe")))
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), Decoder()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return {
        "vocab.json": (ASSETS / "encoder.json").read_bytes(),
        "merges.txt": (ASSETS / "vocab.bpe").read_bytes(),
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": b'{"model_max_length": 1024}',
    }


def gpt2(width: int = 32, blocks: int = 2) -> Repository:
    config = GPT2Config(width=width, blocks=blocks, heads=2)
    settings = json.dumps(published_settings(config), indent=2).encode()
    weights = save(published_tensors(config), {"format": "pt"})
    files = {"README.md": README.encode(), "config.json": settings, "model.safetensors": weights}
    return Repository(files | tokenizer_files())


def as_parquet(columns: dict[str, list], schema: pa.Schema | None = None) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.table(columns, schema), file)
    return file.getvalue()


def mail_text(i: int) -> str:
    return f"{i}: " + " ".join([TEXTS[i % 4]] * (1 + i * 7 % 5))


def enron() -> Repository:
    """SetFit/enron_spam."""

    def lines(numbers: range) -> bytes:
        rows = [
            {
                "message_id": i,
                "text": f"subject {i} {mail_text(i)}",
                "label": (i + 1) % 2,
                "label_text": ("spam", "ham")[i % 2],
                "subject": f"subject {i}",
                "message": mail_text(i),
                "date": "2001-05-14",
            }
            for i in numbers
        ]
        return "".join(json.dumps(row) + "\n" for row in rows).encode()

    return Repository(
        {"README.md": README.encode(), "train.jsonl": lines(range(160)), "test.jsonl": lines(range(160, 200))}
    )


def imdb() -> Repository:
    """stanfordnlp/imdb, whose reviews without a label are a third split."""

    def part(numbers: range, labelled: bool = True) -> bytes:
        texts = [f"Film {i}.<br /><br />{TEXTS[i % 4]}" for i in numbers]
        return as_parquet({"text": texts, "label": [i % 2 if labelled else -1 for i in numbers]})

    files = {"train": part(range(160)), "test": part(range(160, 200)), "unsupervised": part(range(200, 300), False)}
    named = {f"plain_text/{name}-00000-of-00001.parquet": content for name, content in files.items()}
    return Repository({"README.md": IMDB.encode(), **named})


def nli_med() -> Repository:
    """presencesw/all_nli_med_v1."""

    def part(numbers: range) -> bytes:
        labels = ("entailment", "neutral", "contradiction")
        columns = {"sentence1": [f"Patient {i} has a fever." for i in numbers]}
        columns |= {"sentence2": [f"Patient {i} is {labels[i % 3]}." for i in numbers]}
        return as_parquet(columns | {"gold_label": [labels[i % 3] for i in numbers]})

    files = {"train": part(range(160)), "validation": part(range(160, 200))}
    return Repository({f"data/{name}-00000-of-00001.parquet": content for name, content in files.items()})


def alpaca() -> Repository:
    """tatsu-lab/alpaca."""
    numbers = range(200)
    columns = {
        "instruction": [f"Count to {i}." for i in numbers],
        "input": ["slowly" * (i % 2) for i in numbers],
    }
    columns |= {"output": [" ".join(map(str, range(i % 9 + 1))) for i in numbers], "text": ["..." for _ in numbers]}
    name = "data/train-00000-of-00001-a09b74b3ef9c3b56.parquet"
    return Repository({"README.md": README.encode(), name: as_parquet(columns)})


def published() -> dict[str, Repository]:
    return {
        "openai-community/gpt2": gpt2(),
        "datasets/SetFit/enron_spam": enron(),
        "datasets/stanfordnlp/imdb": imdb(),
        "datasets/presencesw/all_nli_med_v1": nli_med(),
        "datasets/tatsu-lab/alpaca": alpaca(),
    }
