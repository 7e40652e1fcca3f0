"""Flags of scripts/predict.py: the model, the rows and the output. Nothing heavy is imported."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from training.flags.cli import at_least


@dataclass(frozen=True)
class ApplyArgs:
    """The model and the data"""

    data: Path
    """csv, tsv, json, jsonl, parquet or arrow file, also as .gz, or a folder of them, or one that save_to_disk wrote"""
    encoding: str | None = None
    """encoding of text files, like cp1252; None: UTF-8, or what a byte order mark says"""
    run: Path | None = None
    """folder of a finished run of finetune_cls or finetune_ift"""
    model: str | None = None
    """any model without its run: a folder that merge_lora or transformers wrote, a run's adapter or model folder, or a
    hub repository; with --run or --adapter: its base, where that has moved"""
    adapter: Path | None = None
    """folder of an adapter, ours or PEFT's, in place of --run; --model: its base, where that has moved"""
    max_length: int | None = None
    """most tokens read of a text; None: as in training, or 512 where that is not known"""
    special_tokens: Literal["text", "tokens"] | None = None
    """how to read what spells <|endoftext|> or another special token of the base; None: as in training"""
    new_tokens: int = 128
    """most tokens of a response"""

    def problems(self) -> list[str]:
        found = at_least(self, 1, "new_tokens", "max_length")
        if self.run is None and self.adapter is None and self.model is None:
            found.append("--run, --model or --adapter: which model is to be applied? give one of them")
        if self.run is not None and self.adapter is not None:
            found.append("--run and --adapter: choose one; a run has its own adapter")
        return found


@dataclass(frozen=True)
class OutputArgs:
    """The output"""

    output: Path | None = None
    """.jsonl, .csv or .tsv file; None: predict-<name of the data>.jsonl in the run folder, else in the current one"""
    keep_columns: tuple[str, ...] = ()
    """columns of the data to copy to the output, or `all`; a name that a column of predictions has becomes input_..."""
    overwrite: bool = False
    """replace an earlier output"""
