"""Teaches GPT-2 which of two answers is preferred: bundled pairs, public ones, or those in your own file.

    accelerate launch scripts/finetune_dpo.py --dataset preferences --model gpt2-nano
    accelerate launch scripts/finetune_dpo.py --dataset dpo_pairs --model gpt2 --start-from runs/tutor --beta 0.1
    accelerate launch scripts/finetune_dpo.py --data mine.jsonl --chosen-column better --rejected-column worse

The first item of the report's future work (section 5). Direct preference optimisation (Rafailov et al. 2023) or IPO
(Azar et al. 2023), without a reward model or sampling. The reference is the model that training starts from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gpt2_scratch.own_tokenizer import needed_end
from tasks import Preferences
from training.data.sources import Inputs, find_inputs
from training.flags.cli import run
from training.flags.finetuning import FineTuneArgs, on_base_of, run_folder, within_context
from training.flags.method import like_lora
from training.flags.preference import FEWEST_UPDATES, PairArgs, PreferenceArgs

OFFLINE = "accelerate launch scripts/finetune_dpo.py --dataset preferences --model gpt2-nano"
# Peak learning rate at width 192 and epochs of each method, chosen on validation pairs: docs/methods.md, "Defaults".
DEFAULTS = like_lora(2e-3, 3.0) | {"full": (2e-4, 3.0), "bitfit": (2e-3, 3.0), "head": (2e-4, 3.0)}
SHOWN = ("reward_accuracy", "reward_margin")


@dataclass(frozen=True)
class Args(FineTuneArgs):
    pairs: PairArgs
    preference: PreferenceArgs


def main(args: Args) -> None:
    args = on_base_of(args.preference.start_from, args)
    inputs = find_inputs(args, args.pairs.task, OFFLINE)
    needed_end(inputs.tokenizer, args.model.model)
    train(within_context(args, inputs.config), inputs, *run_folder(args, inputs.task.name))


def train(args: Args, inputs: Inputs[Preferences], folder: Path, resuming: bool) -> None:
    from training.loop import (
        Accelerator, LanguageModel, Learnt, Pair, PairBatch, Plan, Tensor, accumulate, apply_compute,
        apply_method, apply_update, build_optimizer, cached, collate_pairs, encode_pairs, encode_splits,
        find_start, forgetting, head_notes, losses_at_start, mean_pair_loss, open_finetuning, outputs_of,
        pair_lines, pair_loss, pair_loss_as_forecast, pair_metrics, prepare, print_facts, print_forecast,
        referenced, references, resolve_micro_batch, resolve_update, score_pairs, start, start_model,
        with_references, workload_of)  # fmt: skip

    # Accelerator.
    accelerator, resuming = start(args.compute, folder, resuming)
    method, preference, keeps_reference = args.method, args.preference, args.preference.caches(args.method)
    origin = find_start(preference.start_from, args.pairs, args.model, inputs)

    # Examples and batches: an example is a pair, whose texts are in one batch.
    def encoded(part: list) -> list[Pair]:
        return encode_pairs(inputs.tokenizer, part, args.data.max_length, args.pairs.response_header)

    data = encode_splits(args, inputs, encoded, ("no_room_for_answers", "alike_once_cut"))
    update, schedule, due = resolve_update(args, DEFAULTS, inputs.config.width, data, FEWEST_UPDATES)

    # Model, adapters and freezing.
    data.facts.notes.extend(head_notes(inputs.model_folder))
    model, changed = start_model(origin, args.model, weights=not args.compute.dry_run)
    apply_method(model, method, update.seed, source=inputs.weights)
    apply_compute(model, method.method, args.compute, accelerator.mixed_precision)

    def loss(accelerator: Accelerator, model: LanguageModel, batch: PairBatch) -> Tensor:
        return pair_loss(outputs_of(accelerator, model, batch), batch.reference, batch, preference)

    timed = partial(pair_loss_as_forecast, loss, keeps_reference)
    workload = workload_of(args, update, accelerator, model, data, loss=timed)
    print_facts(accelerator, data, model, update, due.steps, folder)
    if args.compute.dry_run:
        print_forecast(workload, due, args.run.watched(data.validation, update.batch_size))
        return
    update = resolve_micro_batch(workload, folder if resuming else None)

    # Optimizer, prepare, reference, resume.
    optimizer = build_optimizer(model, update, accelerator.scaler is not None, method.lora_plus_ratio or 1.0)
    prepared, optimizer = prepare(accelerator, model), accelerator.prepare(optimizer)
    plan, frozen = Plan(data.train, update, accelerator.num_processes), origin.sha256()
    if args.compute.cache_frozen is not None:
        data = cached(accelerator, model, args.compute, frozen, data)
    # Before a checkpoint changes weights that the reference needs.
    data = with_references(accelerator, model, args, frozen, data, keeps_reference)
    held_out = args.run.watched(data.validation, update.batch_size)
    kept = partial(Learnt, start=origin, before=changed, flags=args)
    run = open_finetuning(accelerator, folder, resuming, args, update, data, model, optimizer, due, plan, kept)

    def evaluate(part: list[Pair]) -> tuple:
        scores = score_pairs(model, part, accelerator)
        return scores, pair_metrics(scores, part, preference) if part and accelerator.is_main_process else None

    def mean_loss(part: Sequence[Pair]) -> float:
        return mean_pair_loss(score_pairs(model, part, accelerator), part, preference)

    known = pair_metrics(references(data.before), data.before, preference) if data.before else None  # of the reference
    before, general = run.begin(lambda: (known, losses_at_start(model, data, accelerator, args, frozen)))

    # Loop.
    while run.goes_on():
        chosen, micro_batches = plan.shares(run.step, data.train, accelerator.process_index)
        lr, count = schedule.lr_at(run.step), len(chosen)
        batches = [referenced(accelerator, model, collate_pairs(pairs), keeps_reference) for pairs in micro_batches]
        loss_sum = accumulate(
            accelerator, prepared, batches, count, partial(loss, accelerator, prepared), (update.seed, run.step)
        )
        norm = apply_update(accelerator, model, optimizer, lr, update.clip_at(run.step, schedule.warmup))
        run.stepped(norm, loss_sum, count, lr, sum(len(p.tokens) for p in chosen), count)
        if run.evaluates and held_out:
            run.evaluated(mean_loss(held_out))
        run.remember()

    # Final evaluation, of the weights that are kept.
    run.load_best(args.run.keep)
    (scores, test), (_, val) = evaluate(data.test), evaluate(data.validation)
    lost = forgetting(model, data.general, accelerator, general, lambda: mean_loss(data.validation or data.test))
    if run.closes(prepared):
        lines = {"predictions.jsonl": pair_lines(scores, data.test, inputs.splits.test, preference)}
        found = {"before": before, "val": val, "test": test, "forgetting": lost}
        found["reference"] = {"sha256": origin.sha256(), "cached": keeps_reference}
        run.finish(lines, SHOWN, f"{preference.dpo_loss} loss", **found)


if __name__ == "__main__":
    run(main, Args, __doc__)
