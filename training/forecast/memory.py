"""How much memory a run needs: its own code, run on tensors that have a shape but no numbers.

Nothing is modelled by a formula. Evaluation, generation and updates run as they will, on the tensors of meter.py; every
one that they make is counted while it lives. That takes seconds for any size of model, and no memory.
"""

import ctypes
import gc
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import Any

import psutil
import torch

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.generate import ROWS
from gpt2_scratch.model import LanguageModel
from gpt2_scratch.pretrained import without_storage
from training.data.batches import TOKENS_PER_BATCH, Encoded, Plan, inference_plan, with_all_tokens_labelled
from training.flags.common import ModelArgs
from training.forecast.rehearsal import Forecast, Rehearsal, use_bitsandbytes
from training.forecast.work import Work
from training.model.methods import quantised_matrices

LATER = ("torch._dynamo", "evaluate", "sklearn.metrics", "torch.utils.tensorboard", "matplotlib.pyplot")


def resident(quantises: bool = False) -> int:
    """Bytes that this process has of the machine's memory, once what it no longer uses is given back.

    Imports first what a run imports on its way (every optimizer torch's compiler, for one), since that stays.
    """
    for name in LATER:
        import_module(name)
    if quantises:
        use_bitsandbytes()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
    return psutil.Process().memory_info().rss


def model_without_weights(kind: Any, config: GPT2Config, model: ModelArgs, *head: Any) -> Any:
    """What training.model.methods builds, without memory: for a dry run, which may be of a model that does not fit."""
    built = without_storage(kind, replace(config, dropout=model.dropout), *head)
    if model.untie_head and config.tied_head:
        built.untie()
    for name, put in quantised_matrices(built, model.base_bits).items():
        with torch.device("meta"):
            put(built.get_parameter(name))
    return built


LOOKED_AT = 200_000  # updates; in a longer training every text has met enough others by then


def worst_micro_batches(work: Work, micro_batch_size: int) -> tuple[list[list[Encoded]], list[Encoded], int]:
    """Of all micro-batches of the training: those with most tokens, rows times the longest, or targets (which may be
    the same one), an average one, and how many make up a step on one process."""
    train, steps = work.train, min(work.update.steps(len(work.train)), LOOKED_AT)
    update = replace(work.update, micro_batch_size=micro_batch_size)
    plan = Plan(train, update, work.accelerator.num_processes)
    measures = [
        lambda micro: sum(plan.lengths[i] for i in micro),
        lambda micro: len(micro) * max(plan.lengths[i] for i in micro),
        lambda micro: sum(train[i].count for i in micro),
    ]
    everything = {tuple(micro) for step in range(steps) for share in plan.at(step) for micro in share if micro}
    ranked = sorted(everything, key=lambda micro: (measures[0](micro), micro))
    chosen = {max(reversed(ranked), key=measure) for measure in measures}  # of equals the one with most tokens
    accumulated = max(len(share) for share in plan.at(0))
    worst = [[train[i] for i in micro] for micro in sorted(chosen)]
    return worst, [train[i] for i in ranked[len(ranked) // 2]], accumulated


def evaluation_batches(examples: Sequence[Encoded], processes: int) -> list[list[Encoded]]:
    """The evaluation's batch with the most tokens, and its last one, which fits into the gaps of others differently."""
    lengths = [len(e.tokens) for e in examples]
    batches = [batch for share in inference_plan(lengths, TOKENS_PER_BATCH, processes) for batch in share]
    batches.sort(key=lambda batch: -sum(lengths[i] for i in batch))
    return [[examples[i] for i in batch] for batch in (*batches[:1], *batches[1:][-1:])]


@cache
def forecast(work: Work, micro_batch_size: int) -> Forecast:
    """What the run needs with so many examples at a time; takes seconds, once."""
    worst, average, accumulated = worst_micro_batches(work, micro_batch_size)
    evaluated = evaluation_batches(work.held_out, work.accelerator.num_processes)
    if isinstance(work.model, LanguageModel):
        evaluated = [[with_all_tokens_labelled(e) for e in batch] for batch in evaluated]
    general = evaluation_batches(work.general.pieces, work.accelerator.num_processes)
    prompts = sorted(work.prompts, key=len)[-ROWS:]
    twice = min(accumulated, 2)  # from the second micro-batch on there are gradients

    rehearsal = Rehearsal(work)
    rehearsal.fill_prefix(evaluation_batches(work.texts, 1)[0])
    for step in range(2):
        for batch in evaluated:
            rehearsal.evaluate(batch)
        for batch in general:
            rehearsal.read_general(batch)
        if prompts and work.new_tokens:
            rehearsal.answer(prompts)
        for micro in (average, *worst) if step == 0 else worst:
            rehearsal.update([micro] * twice)
        rehearsal.save()
    found = rehearsal.forecast()
    del rehearsal
    gc.collect()  # its blocks of the heap
    return found
