"""Trains a GPT-2 from random weights, or goes on from given ones, on your own text: this is how gpt2-nano was made.

    accelerate launch scripts/pretrain.py --data corpus reviews.parquet --tokens 50000000
    accelerate launch scripts/pretrain.py --data corpus --minutes 60 --mixed-precision bf16
    accelerate launch scripts/pretrain.py --data notes.txt --init-from gpt2 --tokens 2000000 --lr 2e-3

The report starts from OpenAI's weights; where no hub can be reached, the bundled model takes their place. Muon trains
the matrices of the blocks, AdamW the rest. Each document is a sequence (or several) of its own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from gpt2_scratch.config import SIZES, GPT2Config
from gpt2_scratch.own_tokenizer import find_tokenizer
from gpt2_scratch.tokenizer import GPT2, Tokenizer
from training.data.sources import base_model
from training.flags.cli import at_least, changed_flags, flag, given_flags, resolved, run
from training.flags.common import FolderArgs, fitted
from training.flags.compute import SpeedArgs
from training.storage.run_folder import check_folder, default_folder

if TYPE_CHECKING:
    from training.data.corpus import Documents
    from training.run.record import Record

    Size = str
else:
    Size = Literal[tuple(SIZES)]

TICKS = 10_000  # parts of the budget; the unit of schedule and progress line
LOGGED = 200  # points of the training curve


@dataclass(frozen=True)
class TextArgs:
    """The text"""

    data: tuple[Path, ...]
    """text files (one document each; of an only one the end is for validation), tables (csv, json, jsonl, parquet; one
    document a row), folders of text files"""
    text_column: str = "text"
    """column of a table"""
    encoding: str | None = None
    """encoding of text files, like cp1252; None: UTF-8, or what a byte order mark says"""
    validation_share: float = 0.02
    """share of the tokens, in whole documents, that is held out"""
    max_length: int = 1024
    """longest sequence in tokens; longer documents are cut into several. The default is at most the context"""
    special_tokens: Literal["text", "tokens"] = "text"
    """how to read what spells <|endoftext|>, another model's end marker (</s>, <|im_end|>) or a special token of the
    base: as ordinary text, or as that token; an end then parts two documents"""

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
    """budget: minutes of training, evaluation not counted; on another machine such a run ends at another step"""
    batch_tokens: int = 8192
    """tokens per optimizer step, over all processes"""
    micro_batch_tokens: int = 8192
    """tokens that one device holds at a time; the number of accumulation steps follows"""
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
    """weight decay of the matrices of the blocks"""
    max_grad_norm: float = 1.0
    """clip the norm of all gradients together to this"""
    softmax_tokens: int | None = None
    """estimate the softmax from n tokens: the most frequent ones, a random quarter that stands for all others, and
    those of the batch; 8,000 of 50,257 make gpt2-nano 2.4 times as fast. None: all tokens"""
    softmax_whole: float = 0.1
    """share of the budget, at its end, with the whole softmax nevertheless"""
    seed: int = 0
    """seed of initialisation, order and drawn tokens"""

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
        if self.softmax_tokens is None and "softmax_whole" in given_flags(self):
            found.append("--softmax-whole: the softmax is whole throughout; leave it out, or add --softmax-tokens")
        if self.warmup_share + self.hold_share > 1:
            found.append("--warmup-share and --hold-share: together they must be at most 1")
        return found

    def untrained(self) -> ValueError:
        """Returns the refusal of a budget of one update, which changes no weight."""
        budget = f"--tokens {self.tokens}" if self.minutes is None else f"--minutes {self.minutes:g}"
        return ValueError(
            f"{budget}: the first update, whose learning rate is 0, uses it up and trains nothing; raise it, lower "
            "--batch-tokens, or add --warmup-share 0"
        )

    def share_done(self, record: "Record") -> float:
        """Returns the share of the budget that is used up: 0 to a little over 1."""
        if self.tokens is not None:
            return record.tokens / self.tokens
        assert self.minutes is not None, "problems() asks for one of the two"
        return record.train_seconds / (60 * self.minutes)


class Base(NamedTuple):
    """The start of the training: the weights in a folder, or random ones without a folder."""

    weights: Path | None
    config: GPT2Config
    tokenizer: Tokenizer


class Budget:
    """Decides when things are due in a run of so many tokens or minutes, by the share of them that is used up."""

    unit = "/10,000"  # of the progress line

    def __init__(self, options: PretrainArgs, evaluations: int, agreed: Callable[[float], float]) -> None:
        """`agreed` turns a process's share into the one that all processes use, since their clocks differ."""
        self.options, self.evaluations, self.agreed = options, evaluations, agreed
        self.before, self.done = 0.0, 0.0  # shares, at the step before and now

    def advance(self, record: "Record") -> None:
        self.before, self.done = self.done, self.agreed(self.options.share_done(record))

    def over(self, record: "Record") -> bool:
        return self.done >= 1

    def is_time_for(self, what: str, record: "Record") -> bool:
        """Returns whether the last step passed one of the points of the budget at which `what` is due."""
        times = LOGGED if what == "log" else self.evaluations
        return int(self.before * times) < int(min(self.done, 1.0) * times)

    def progress(self, record: "Record") -> int:
        return int(self.done * TICKS)


@dataclass(frozen=True)
class OutputArgs(FolderArgs):
    """Evaluation and the run folder"""

    evaluations: int = 20
    """evaluations while training, each followed by a checkpoint"""
    eval_tokens: int = 50_000
    """held-out tokens in each evaluation, roughly; all are used at the end"""
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


def run_folder(args: Args) -> tuple[Path, bool]:
    """Returns the run folder, and whether to go on from its checkpoint. Raises ValueError as `check_folder` does."""
    base = {"size" if args.training.init_from is None else "init_from": args.training.init_from or args.training.size}
    name = f"{Path(*base.values()).name}-seed{args.training.seed}"
    seed, output = args.training.seed, args.output
    spelled = ({} if args.training.init_from else base) | {"seed": seed}  # of a folder, the name has a part alone
    folder = output.output_dir or default_folder("pretrain", name, changed_flags(args), spelled)
    read = [("init-from", args.training.init_from), *(("data", path) for path in args.text.data)]
    return folder, check_folder(folder, output.overwrite, output.resume, read)


def main(args: Args) -> None:
    from training.data.corpus import read_documents

    given = args.training.init_from
    weights, config = base_model(given, "--init-from") if given else (None, SIZES[args.training.size])
    size, own = SIZES[args.training.size], (config.width, config.blocks)
    if "size" in changed_flags(args) and (size.width, size.blocks) != own:
        raise ValueError(f"--size {args.training.size}: {given} of --init-from has a size of its own; leave one out")
    args = replace(args, text=fitted(args.text, config))
    if args.text.max_length > config.context:
        raise ValueError(f"--max-length {args.text.max_length}: the context of the model is {config.context} tokens")
    folder, resuming = run_folder(args)
    documents = read_documents(args.text.data, args.text.text_column, args.text.encoding)
    tokenizer = GPT2 if weights is None else find_tokenizer(weights, config, "--init-from")
    base = Base(weights, config, tokenizer.reading(args.text.special_tokens))
    train(args, documents, base, folder, resuming)


def train(args: Args, documents: "Documents", base: Base, folder: Path, resuming: bool) -> None:
    from training.loop import (
        Batch, DTYPES, LanguageModel, Packing, Run, Schedule, ShortSoftmax, Tensor, accumulate, apply_compute,
        apply_update, encode_corpus, from_main, generator, identity_of, head_notes, initialise, load_weights, mean_loss,
        muon_with_adamw, plot_curves, print_corpus, replace_folder, round_weights, save_pretrained, score_targets,
        shown, start, text_loss, token_loss, upto, weights_hash)  # fmt: skip

    # Accelerator.
    accelerator, resuming = start(args.speed, folder, resuming)
    text, options, seed, tokenizer = args.text, args.training, args.training.seed, base.tokenizer

    # Documents and batches.
    corpus = encode_corpus(text.data, documents, tokenizer, text.validation_share, text.max_length, seed)
    plan = Packing(corpus.train, text.max_length, options.batch_tokens, options.micro_batch_tokens, seed)
    watched = upto(corpus.validation, args.output.eval_tokens)

    # Model.
    model = LanguageModel(base.config)
    if base.weights is None:
        initialise(model, generator(seed, "weights"))
    else:
        load_weights(model, base.weights)
        corpus.facts.notes.extend(head_notes(base.weights))
    apply_compute(model, "full", args.speed, accelerator.mixed_precision)
    objective = ShortSoftmax(model, corpus.train, options.softmax_tokens)
    print_corpus(accelerator, corpus.facts, model)

    # Optimizer, prepare, resume.
    ratios = options.embedding_lr_ratio, options.other_lr_ratio
    prepared, optimizer = accelerator.prepare(objective, muon_with_adamw(model, *ratios, options.weight_decay))
    sha256 = weights_hash(base.weights) if base.weights else None
    identity = identity_of(accelerator, corpus.facts.sha256, str(sha256), tokenizer)
    agreed = (lambda share: share) if options.minutes is None else (lambda share: from_main(accelerator, lambda: share))
    budget = Budget(options, args.output.evaluations, agreed)
    described = {"model": {"name": options.init_from or options.size, "sha256": sha256}, "data": corpus.facts}
    schedule = Schedule(TICKS, int(options.warmup_share * TICKS), options.lr, hold=int(options.hold_share * TICKS))
    setting = accelerator, folder, resuming, model, optimizer, budget, plan.per_epoch, TICKS
    if schedule.lr_at(0) == 0 and options.tokens is not None and plan.span(0)[1] >= options.tokens:
        raise options.untrained()
    run = Run(*setting, resolved(args), identity, described)
    run.begin()

    # Loop.
    def loss(batch: Batch) -> Tensor:
        whole = 1 - budget.done <= options.softmax_whole
        return token_loss(prepared(batch.tokens, batch.lengths, batch.labels, whole))[0]

    while run.goes_on():
        first, last = plan.span(run.step)
        lr, count = schedule.lr_at(budget.progress(run.record)), last - first
        batches = plan.at(run.step, accelerator.process_index, accelerator.num_processes)
        loss_sum = accumulate(accelerator, prepared, batches, count, loss, (seed, run.step))
        norm = apply_update(accelerator, objective, optimizer, lr, options.max_grad_norm)
        run.stepped(norm, loss_sum, count, lr, tokens=count)
        if run.evaluates:
            with accelerator.autocast():
                run.evaluated(mean_loss(score_targets(model, watched, accelerator)))
        run.remember()
    if run.step == 1 and schedule.lr_at(0) == 0:
        raise options.untrained()
    run.check_last()

    # Final evaluation, of the weights as they are saved.
    dtype = DTYPES[args.output.save_dtype]
    round_weights(model, dtype)
    rows = score_targets(model, corpus.validation, accelerator)
    if run.closes(prepared):
        replace_folder(folder / "model", lambda new: save_pretrained(model, new, tokenizer, dtype))
        plot_curves(folder / "curves.png", run.record.curve, folder.name)
        val = text_loss(rows)
        run.write(run.results(val=val))
        tokens, held_out = corpus.facts.tokens["validation"], corpus.facts.documents["validation"]
        print(f"val     loss {shown(val['loss'])} nats a token, {tokens:,} tokens of {held_out:,} documents")


if __name__ == "__main__":
    run(main, Args, __doc__)
