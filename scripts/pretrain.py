"""Trains a GPT-2 from random weights, or goes on from given ones, on your own text: this is how gpt2-nano was made.

    accelerate launch scripts/pretrain.py --data corpus reviews.parquet --tokens 50000000
    accelerate launch scripts/pretrain.py --data corpus --minutes 60 --mixed-precision bf16
    accelerate launch scripts/pretrain.py --data notes.txt --init-from gpt2 --tokens 2000000 --lr 2e-3

The report starts from OpenAI's weights; where no hub can be reached, the bundled model takes their place. Muon trains
the matrices of the blocks, AdamW the rest. Each document is a sequence (or several) of its own.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gpt2_scratch.config import SIZES, GPT2Config
from gpt2_scratch.own_tokenizer import find_tokenizer
from gpt2_scratch.tokenizer import GPT2, Tokenizer
from training.data.sources import base_model
from training.flags.cli import at_least, changed_flags, flag, resolved, run
from training.flags.common import FolderArgs
from training.flags.compute import SpeedArgs
from training.storage.run_folder import check_folder, default_folder

if TYPE_CHECKING:
    from training.data.corpus import Documents
    from training.run.record import Record

    Size = str
else:
    Size = Literal[tuple(SIZES)]

TICKS = 10_000  # parts of the budget in which the learning rate is counted
LOGGED = 200  # points of the curve


def due(times: int, before: float, now: float) -> bool:
    """Whether something that happens so many times in all happens between these two shares of the budget."""
    return int(before * times) < int(min(now, 1.0) * times)


@dataclass(frozen=True)
class TextArgs:
    """What it learns from"""

    data: tuple[Path, ...]
    """text files (one document each), tables (csv, json, jsonl, parquet; one document a row), folders of text files"""
    text_column: str = "text"
    """column of a table"""
    encoding: str | None = None
    """encoding of text files, like cp1252; None: UTF-8, or what a byte order mark says"""
    validation_share: float = 0.02
    """share of the tokens, in whole documents, that is held out"""
    max_length: int = 1024
    """tokens that see each other; longer documents are cut"""
    special_tokens: Literal["text", "tokens"] = "text"
    """what spells <|endoftext|>, another model's end marker (</s>, <|im_end|>) or a special token of the base: ordinary
    text, or that token; an end then parts two documents"""

    def problems(self) -> list[str]:
        found = [f"--data {path}: no such file or folder" for path in self.data if not path.exists()]
        if not 0 < self.validation_share < 1:
            found.append(f"--validation-share {self.validation_share}: must be above 0 and below 1")
        return found + at_least(self, 1, "max_length")


@dataclass(frozen=True)
class PretrainArgs:
    """What is trained, for how long, and how"""

    size: Size = "gpt2-nano"
    """shape of a model that starts from random weights"""
    init_from: str | None = None
    """weights to go on from: gpt2-nano, gpt2, ..., a hub repository or a folder in HF format; None: random"""
    tokens: int | None = None
    """budget: tokens to train on, repeated ones counted again"""
    minutes: float | None = None
    """budget: minutes of training, evaluation not counted; such a run ends elsewhere on another machine"""
    batch_tokens: int = 8192
    """tokens per optimizer step, over all processes"""
    micro_batch_tokens: int = 8192
    """tokens one device holds at a time; the accumulation steps follow from it"""
    lr: float = 0.01
    """Muon's peak learning rate, for the matrices of the blocks; starts from 0"""
    embedding_lr_ratio: float = 0.6
    """AdamW's learning rate for embeddings, over --lr"""
    other_lr_ratio: float = 0.1
    """AdamW's learning rate for biases and norms, over --lr"""
    warmup_share: float = 0.02
    """share of the budget in which the learning rate rises"""
    hold_share: float = 0.0
    """share of the budget, after the warmup, at the peak; then the learning rate falls to 0 along a cosine"""
    weight_decay: float = 0.01
    """on the matrices of the blocks"""
    max_grad_norm: float = 1.0
    """clip the norm of all gradients together to this"""
    softmax_tokens: int | None = None
    """estimate the softmax from n tokens: the most frequent ones, a drawn quarter that stands for all others, and those
    of the batch; 8,000 of 50,257 make gpt2-nano 2.4 times as fast. None: all tokens"""
    softmax_whole: float = 0.1
    """share of the budget, at its end, with the whole softmax all the same"""
    seed: int = 0
    """of initialisation, order and drawn tokens"""

    def problems(self) -> list[str]:
        found = at_least(self, 1, "tokens", "batch_tokens", "micro_batch_tokens", "softmax_tokens")
        found += at_least(self, 0, "weight_decay", "seed")
        if (self.tokens is None) == (self.minutes is None):
            found.append("--tokens or --minutes: give the budget in one of them")
        for name in ("minutes", "lr", "embedding_lr_ratio", "other_lr_ratio", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                found.append(f"{flag(name)} {value}: must be above 0 and finite")
        for name in ("warmup_share", "hold_share", "softmax_whole"):
            if not 0 <= getattr(self, name) <= 1:
                found.append(f"{flag(name)} {getattr(self, name)}: must be 0 to 1")
        if self.warmup_share + self.hold_share > 1:
            found.append("--warmup-share and --hold-share: together they must be at most 1")
        return found

    def share_done(self, record: "Record") -> float:
        """Of the budget, 0 to 1 and a little more."""
        if self.tokens is not None:
            return record.tokens / self.tokens
        assert self.minutes is not None, "problems() asks for one of the two"
        return record.train_seconds / (60 * self.minutes)


@dataclass(frozen=True)
class OutputArgs(FolderArgs):
    """Evaluation and the run folder"""

    evaluations: int = 20
    """evaluations while training, each followed by a checkpoint"""
    eval_tokens: int = 50_000
    """about so many held-out tokens in each of them; all at the end"""
    save_dtype: Literal["fp32", "bf16"] = "fp32"
    """precision of the saved model"""

    def problems(self) -> list[str]:
        return at_least(self, 1, "evaluations", "eval_tokens") + super().problems()


@dataclass(frozen=True)
class Args:
    text: TextArgs
    training: PretrainArgs
    speed: SpeedArgs
    output: OutputArgs


def main(args: Args) -> None:
    from training.data.corpus import read_documents

    start_from, output = args.training.init_from, args.output
    given = base_model(start_from, "--init-from") if start_from else None
    folder, config = given or (None, SIZES[args.training.size])
    if args.text.max_length > config.context:
        raise ValueError(f"--max-length {args.text.max_length}: the context of the model is {config.context} tokens")
    spelled = {"init_from" if start_from else "size": start_from or args.training.size, "seed": args.training.seed}
    name = f"{Path(start_from or args.training.size).name}-seed{args.training.seed}"
    run_folder = output.output_dir or default_folder("pretrain", name, changed_flags(args), spelled)
    resuming = check_folder(run_folder, output.overwrite, output.resume)
    documents = read_documents(args.text.data, args.text.text_column, args.text.encoding)
    tokenizer = GPT2 if folder is None else find_tokenizer(folder, config, "--init-from")
    train(args, documents, folder, config, tokenizer.reading(args.text.special_tokens), run_folder, resuming)


def train(
    args: Args,
    documents: "Documents",
    weights: Path | None,
    config: GPT2Config,
    tokenizer: Tokenizer,
    folder: Path,
    resuming: bool,
) -> None:
    # Imported here because they take seconds: whatever can be refused without them has been.
    import torch

    from evidence.intervals import shown
    from gpt2_scratch.model import LanguageModel, initialise
    from gpt2_scratch.precision import DTYPES
    from gpt2_scratch.pretrained import load_weights, save_pretrained, weights_hash
    from training.data.batches import Batch
    from training.data.corpus import Packing, fingerprint, hold_out, pieces, tokenised, upto
    from training.data.special_tokens import special_tokens_note
    from training.evaluation.inference import score_targets
    from training.evaluation.metrics import mean_loss, text_loss
    from training.model.heads import head_notes
    from training.model.methods import apply_compute, parameter_counts
    from training.run.checkpoint import Training, load_checkpoint, save_checkpoint
    from training.run.launch import close_run, open_run, start
    from training.run.plots import plot_curves
    from training.run.progress import ProgressLine
    from training.run.record import Record
    from training.run.results import environment, measured, write_results
    from training.run.trackers import close_trackers
    from training.step.losses import token_loss
    from training.step.optimizers import muon_with_adamw
    from training.step.processes import check_same, from_main
    from training.step.schedule import Schedule
    from training.step.seeds import generator
    from training.step.short_softmax import ShortSoftmax
    from training.step.update import accumulate, apply_update
    from training.storage.files import replace_folder

    # Accelerator and seed.
    accelerator, resuming = start(args.speed, folder, resuming)
    main_process, rank, processes = accelerator.is_main_process, accelerator.process_index, accelerator.num_processes
    options, seed = args.training, args.training.seed

    # Documents and batches.
    heads = head_notes(weights, None, used=False) if weights else []
    notes = [*documents.notes, *tokenizer.notes, *heads]
    notes += special_tokens_note(tokenizer, documents.texts, "documents")
    if main_process:
        print("".join(f"note       {note}\n" for note in notes), end="")
    tokens = tokenised(documents.texts, tokenizer)
    examples, held_out = hold_out(tokens, args.text.validation_share, seed)
    plan = Packing(examples, args.text.max_length, options.batch_tokens, options.micro_batch_tokens, seed)
    validation = pieces(held_out, args.text.max_length)
    watched = upto(validation, args.output.eval_tokens)
    held_tokens = sum(e.count for e in validation)
    data: dict[str, Any] = {"source": [str(path) for path in args.text.data], "sha256": fingerprint(tokens)}
    data |= {"notes": notes}
    data |= {"documents": {"train": len(examples), "validation": len(held_out)}}
    data |= {"tokens": {"train": plan.tokens, "validation": held_tokens}}

    # Model.
    model = LanguageModel(config)
    if weights is None:
        initialise(model, generator(seed, "weights"))
    else:
        load_weights(model, weights)
    apply_compute(model, "full", args.speed, accelerator.mixed_precision)
    objective = ShortSoftmax(model, examples, options.softmax_tokens)
    parameters = parameter_counts(model)
    if main_process:
        print(f"data       {len(tokens):,} documents, sha256 {data['sha256'][:12]}")
        print(f"  train      {plan.tokens:>12,} tokens in {len(examples):,} documents")
        print(f"  validation {held_tokens:>12,} tokens in {len(held_out):,} documents")
        print(f"model      {parameters['total']:,} parameters", flush=True)

    # Optimizer, prepare, resume.
    ratios = options.embedding_lr_ratio, options.other_lr_ratio
    prepared, optimizer = accelerator.prepare(objective, muon_with_adamw(model, *ratios, options.weight_decay))
    base = {"name": options.init_from or options.size, "sha256": weights_hash(weights) if weights else None}
    identity = {"data": data["sha256"], "base": str(base["sha256"]), "processes": str(processes)}
    identity["precision"] = accelerator.mixed_precision
    identity |= {"tokenizer": tokenizer.sha256} if tokenizer.sha256 else {}
    check_same(accelerator, identity)
    training, flags = Training(accelerator, model, optimizer, identity), resolved(args)
    record = load_checkpoint(folder, training, flags)[0] if resuming else Record()
    open_run(accelerator, folder, resuming, record.step, flags)
    schedule = Schedule(TICKS, int(options.warmup_share * TICKS), options.lr, hold=int(options.hold_share * TICKS))

    # Loop.
    def loss(batch: Batch):  # type: ignore[no-untyped-def]
        whole = 1 - done <= options.softmax_whole
        return token_loss(prepared(batch.tokens, batch.lengths, batch.labels, whole))[0]

    def reached() -> float:
        share = options.share_done(record)
        return share if options.minutes is None else from_main(accelerator, lambda: share)  # clocks differ

    done = reached()
    line = ProgressLine(TICKS, int(done * TICKS), main_process, "/10,000")
    while done < 1:
        started = time.perf_counter()
        first, last = plan.span(record.step)
        lr, count = schedule.lr_at(int(done * TICKS)), last - first
        batches = plan.at(record.step, rank, processes)
        loss_sum = accumulate(accelerator, prepared, batches, count, loss, (seed, record.step))
        norm = apply_update(accelerator, objective, optimizer, lr, options.max_grad_norm)
        if norm is None:
            record.add_overflow()
            continue
        record.add_step(loss_sum, count, 0, count, time.perf_counter() - started)
        before, done = done, reached()
        line.show(int(done * TICKS) - int(before * TICKS), loss_sum / count, lr, record.last("val_loss"))

        started, point = time.perf_counter(), {"lr": lr, "grad_norm": norm}
        evaluated = due(args.output.evaluations, before, done)
        if evaluated:
            with accelerator.autocast():
                point["val_loss"] = mean_loss(score_targets(model, watched, accelerator))
        if evaluated or due(LOGGED, before, done):
            accelerator.log(record.add_point(plan.per_epoch, **point), step=record.step)
        record.eval_seconds += time.perf_counter() - started
        if evaluated and main_process:
            save_checkpoint(folder, training, record, flags)
    line.close()

    # Final evaluation, of the weights as they are saved.
    dtype = DTYPES[args.output.save_dtype]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(dtype))
    rows = score_targets(model, validation, accelerator)
    close_run(accelerator)
    if not main_process:
        return

    # Results.
    replace_folder(folder / "model", lambda new: save_pretrained(model, new, tokenizer, dtype))
    plot_curves(folder / "curves.png", record.curve, folder.name)
    outcome = {"args": flags, "environment": environment(accelerator), "model": base, "data": data}
    outcome |= {"parameters": parameters} | measured(accelerator, record) | {"val": text_loss(rows)}
    write_results(folder, outcome)
    close_trackers(accelerator, record.step, outcome)
    print(f"val     loss {shown(outcome['val']['loss'])}", end=" ")
    print(f"nats a token, {held_tokens:,} tokens of {len(held_out):,} documents")
    print(f"model   {folder}/model; --model {folder}/model uses it in the other scripts")


if __name__ == "__main__":
    run(main, Args, __doc__)
