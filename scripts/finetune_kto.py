"""Teaches GPT-2 from answers that are rated good or bad one by one: those in your own file, or pairs taken apart.

    accelerate launch scripts/finetune_kto.py --dataset preferences --model gpt2-nano
    accelerate launch scripts/finetune_kto.py --dataset dpo_pairs --model gpt2 --start-from runs/tutor --beta 0.1
    accelerate launch scripts/finetune_kto.py --data mine.csv --response-column answer --label-column thumbs

Kahneman-Tversky optimisation (Ethayarajh et al. 2024), without a reward model, sampling or pairs. The reference is the
model that training starts from; the reference point belongs to the whole step (training/evaluation/reference.py).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gpt2_scratch.own_tokenizer import needed_end
from tasks import Ratings, Unpaired, refuse_one_kind
from training.data.sources import Inputs, find_inputs
from training.flags.cli import run
from training.flags.finetuning import FineTuneArgs, on_base_of, run_folder, within_context
from training.flags.method import like_lora
from training.flags.preference import FEWEST_UPDATES, KtoArgs, RatingArgs

OFFLINE = "accelerate launch scripts/finetune_kto.py --dataset preferences --model gpt2-nano"
# Peak learning rate at width 192 and epochs of each method, chosen on validation answers: docs/methods.md, "Defaults".
DEFAULTS = like_lora(4e-3, 3.0) | {"full": (4e-4, 3.0), "bitfit": (4e-3, 3.0), "head": (4e-4, 3.0)}
SHOWN = ("reward_accuracy", "good_reward", "bad_reward")


@dataclass(frozen=True)
class Args(FineTuneArgs):
    ratings: RatingArgs
    preference: KtoArgs


def main(args: Args) -> None:
    args = on_base_of(args.preference.start_from, args)
    inputs = find_inputs(args, args.ratings.task, OFFLINE)
    needed_end(inputs.tokenizer, args.model.model)
    train(within_context(args, inputs.config), inputs, *run_folder(args, inputs.task.name))


def train(args: Args, inputs: Inputs[Ratings | Unpaired], folder: Path, resuming: bool) -> None:
    from training.loop import (
        Accelerator, LanguageModel, Learnt, PairBatch, Plan, RatedPair, Tensor, accumulate, apply_compute,
        apply_method, apply_update, build_optimizer, cached, collate_rated, encode_rated, encode_splits,
        find_start, forgetting, head_notes, losses_at_start, mean_rated_loss, open_finetuning, outputs_of,
        prepare, print_facts, print_forecast, rated_lines, rated_loss, rated_loss_as_forecast, rated_metrics,
        reference_point, referenced, references, resolve_micro_batch, resolve_update, score_pairs, start,
        start_model, with_references, workload_of)  # fmt: skip

    # Accelerator.
    accelerator, resuming = start(args.compute, folder, resuming)
    method, preference, keeps_reference = args.method, args.preference, args.preference.caches(args.method)
    origin = find_start(preference.start_from, args.ratings, args.model, inputs)

    # Examples and batches: an example is an answer, and the answer to another prompt for the reference point.
    def encoded(part: list) -> list[RatedPair]:
        return encode_rated(inputs.tokenizer, part, args.data.max_length, args.ratings.response_header)

    data = encode_splits(args, inputs, encoded, ("no_room_for_answers",))
    kinds = Counter(data.facts.balance["train"])  # without the answers that --max-length leaves out
    refuse_one_kind(kinds.elements(), "give a larger --max-length, with which others fit")
    update, schedule, due = resolve_update(args, DEFAULTS, inputs.config.width, data, FEWEST_UPDATES)

    # Model, adapters and freezing.
    data.facts.notes.extend(head_notes(inputs.model_folder))
    model, changed = start_model(origin, args.model, weights=not args.compute.dry_run)
    apply_method(model, method, update.seed, source=inputs.weights)
    apply_compute(model, method.method, args.compute, accelerator.mixed_precision)

    def loss(accelerator: Accelerator, model: LanguageModel, point: float | Tensor, batch: PairBatch) -> Tensor:
        return rated_loss(outputs_of(accelerator, model, batch), batch.reference, batch, point, preference)

    timed = partial(rated_loss_as_forecast, loss, keeps_reference)
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

    def evaluate(part: list[RatedPair]) -> tuple:
        scores = score_pairs(model, part, accelerator)
        return scores, rated_metrics(scores, part, preference) if part and accelerator.is_main_process else None

    def mean_loss(part: Sequence[RatedPair]) -> float:
        return mean_rated_loss(score_pairs(model, part, accelerator), part, preference)

    known = rated_metrics(references(data.before), data.before, preference) if data.before else None  # of the reference
    before, general = run.begin(lambda: (known, losses_at_start(model, data, accelerator, args, frozen)))

    # Loop.
    while run.goes_on():
        chosen, micro_batches = plan.shares(run.step, data.train, accelerator.process_index)
        lr, count = schedule.lr_at(run.step), len(chosen)
        batches = [referenced(accelerator, model, collate_rated(part), keeps_reference) for part in micro_batches]
        point = reference_point(model, chosen, accelerator, keeps_reference)
        loss_of_batch = partial(loss, accelerator, prepared, point)
        loss_sum = accumulate(accelerator, prepared, batches, count, loss_of_batch, (update.seed, run.step))
        norm = apply_update(accelerator, model, optimizer, lr, update.clip_at(run.step, schedule.warmup))
        run.stepped(norm, loss_sum, count, lr, sum(len(e.tokens) for e in chosen), count)
        if run.evaluates and held_out:
            run.evaluated(mean_loss(held_out))
        run.remember()

    # Final evaluation, of the weights that are kept.
    run.load_best(args.run.keep)
    (scores, test), (_, val) = evaluate(data.test), evaluate(data.validation)
    lost = forgetting(model, data.general, accelerator, general, lambda: mean_loss(data.validation or data.test))
    if run.closes(prepared):
        lines = {"predictions.jsonl": rated_lines(scores, data.test, inputs.splits.test, preference)}
        found = {"before": before, "val": val, "test": test, "forgetting": lost}
        found["reference"] = {"sha256": origin.sha256(), "cached": keeps_reference}
        run.finish(lines, SHOWN, "KTO loss", **found)


if __name__ == "__main__":
    run(main, Args, __doc__)
