"""Teaches GPT-2 which of two answers is preferred: bundled pairs, public ones, or those in your own file.

    accelerate launch scripts/finetune_dpo.py --dataset preferences --model gpt2-nano
    accelerate launch scripts/finetune_dpo.py --dataset dpo_pairs --model gpt2 --start-from runs/tutor --beta 0.1
    accelerate launch scripts/finetune_dpo.py --data mine.jsonl --chosen-column better --rejected-column worse

The first item of the report's future work (section 5). Direct preference optimisation (Rafailov et al. 2023) or IPO
(Azar et al. 2023): no reward model, no sampling. The reference is the model that training starts from.
"""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gpt2_scratch.own_tokenizer import needed_end
from tasks import Preferences
from training.data.sources import Inputs, find_inputs
from training.flags.cli import changed_flags, problems_in, refuse, resolved, run
from training.flags.common import DataArgs, MethodArgs, ModelArgs, RunArgs, UpdateArgs
from training.flags.compute import ComputeArgs
from training.flags.forgetting import ForgettingArgs
from training.flags.method import like_lora
from training.flags.preference import PairArgs, PreferenceArgs
from training.storage.run_folder import check_folder, default_folder, run_name

OFFLINE = "accelerate launch scripts/finetune_dpo.py --dataset preferences --model gpt2-nano"
# Peak learning rate at width 192 and epochs of each method, chosen on validation pairs: README, "Defaults".
DEFAULTS = like_lora(2e-3, 3.0) | {"full": (2e-4, 3.0), "bitfit": (2e-3, 3.0), "head": (2e-4, 3.0)}
# Few pairs get no more epochs for that: 101 bundled ones (LoRA, seed 0) gave a loss on 12 test pairs of 0.42 after 39
# updates, and of 0.90 at the best validation loss of 208.
FEWEST_UPDATES = 1


@dataclass(frozen=True)
class Args:
    data: DataArgs
    pairs: PairArgs
    preference: PreferenceArgs
    model: ModelArgs
    method: MethodArgs
    update: UpdateArgs
    compute: ComputeArgs
    forgetting: ForgettingArgs
    run: RunArgs


def main(args: Args) -> None:
    data, model = args.data, args.model.model
    weights = not args.compute.dry_run
    inputs = find_inputs(data, model, lambda: args.pairs.task(data.dataset, data.data), OFFLINE, weights)
    needed_end(inputs.tokenizer, model)
    refuse(problems_in(args, config=inputs.config))
    name, spelled = run_name(inputs.task.name, model, args.method.method, args.update.seed)
    folder = args.run.output_dir or default_folder("finetune_dpo", name, changed_flags(args), spelled)
    train(args, inputs, folder, not args.compute.dry_run and check_folder(folder, args.run.overwrite, args.run.resume))


def train(args: Args, inputs: Inputs[Preferences], folder: Path, resuming: bool) -> None:
    # Imported here because they take seconds: whatever can be refused without them has been.
    from gpt2_scratch.model import LanguageModel
    from training.data.batches import Plan
    from training.data.pairs import collate_pairs, encode_pairs, paired, texts_of
    from training.evaluation.forgetting import forgetting, general_losses, general_text
    from training.evaluation.preference import losses, pair_metrics, predictions, references
    from training.evaluation.reference import reference_in, score_pairs, with_cached_reference, with_reference
    from training.forecast import Workload, print_forecast, resolve_micro_batch
    from training.model.frozen_activations import with_frozen_activations
    from training.model.heads import head_notes
    from training.model.methods import (
        apply_compute,
        apply_method,
        build_without_weights,
        load_own_state,
        parameter_counts,
    )
    from training.model.saved import base_facts, read_best, save_best
    from training.model.start import find_start, save_learnt, start_model
    from training.run.checkpoint import Training, load_checkpoint, save_checkpoint
    from training.run.launch import close_run, open_run, start
    from training.run.outcome import outcome_notes, print_outcome
    from training.run.plots import plot_curves, plot_forgetting
    from training.run.progress import ProgressLine
    from training.run.record import Record, intervals
    from training.run.results import environment, measured, write_results
    from training.run.summary import data_facts, print_facts
    from training.run.trackers import close_trackers
    from training.step.losses import outputs_of, pair_loss
    from training.step.optimizers import build_optimizer
    from training.step.processes import check_same, from_main
    from training.step.schedule import build_schedule
    from training.step.update import accumulate, apply_update
    from training.storage.files import write_lines

    # Accelerator and seed.
    accelerator, resuming = start(args.compute, folder, resuming)
    main_process, rank = accelerator.is_main_process, accelerator.process_index
    method, preference, tokenizer = args.method.method, args.preference, inputs.tokenizer
    origin, cached = find_start(preference.start_from, args.pairs, args.model, inputs), preference.caches(args.method)

    # Examples and batches: an example is a pair, of which both texts lie in one batch.
    encoded = {
        name: encode_pairs(tokenizer, part, args.data.max_length, args.pairs.response_header)
        for name, part in inputs.splits.named().items()
    }
    data = data_facts(inputs.splits, {name: texts_of(part) for name, part in encoded.items()}, inputs.source)
    everything = [pair for part in encoded.values() for pair in part]
    data["skipped"]["no_room_for_answers"] = sum(not pair.room for pair in everything)
    data["skipped"]["alike_once_cut"] = sum(pair.room and pair.alike for pair in everything)
    parts: list[list[Any]] = [[p for p in part if p.room and not p.alike] for part in encoded.values()]
    if not parts[0]:
        raise ValueError(
            f"--max-length {args.data.max_length}: no training pair has room for what sets its answers apart"
        )
    held_out = args.run.evaluated(range(len(parts[1])), args.update.batch_size)
    update = args.update.with_defaults(*DEFAULTS[method], inputs.config.width, len(parts[0]), FEWEST_UPDATES)
    steps = update.steps(len(parts[0]))
    data["notes"] += head_notes(inputs.model_folder, None, used=False)
    args.forgetting.check_examples([*parts[1], *parts[2]])
    general = general_text(args.forgetting, inputs.model_folder, inputs.config, inputs.tokenizer)
    schedule, due = build_schedule(update, steps), intervals(args.run, steps)

    # Model, adapters and freezing.
    if args.compute.dry_run:
        model, before = build_without_weights(LanguageModel, origin.trained_shape(), args.model), None
    else:
        model, before = start_model(origin, args.model)
    apply_method(model, args.method, update.seed, source=inputs.weights)
    apply_compute(model, method, args.compute, accelerator.mixed_precision)

    def unprepared_loss(accelerator: Any, model: Any, batch: Any) -> Any:
        reference = reference_in(accelerator, model, batch, cached)
        return pair_loss(outputs_of(accelerator, model, batch), reference, batch, preference)

    workload = Workload(model, update, accelerator, parts[0], parts[1], parts[2], args.compute, general)
    workload = replace(workload, whole_model=method == "full", loss=unprepared_loss)
    parameters = parameter_counts(model)
    if main_process:
        length = {"updates": f"{steps:,}", "epochs": f"{steps / update.steps_per_epoch(len(parts[0])):.3g}"}
        print_facts(data, parameters, length | {"lr": f"{update.lr:.3g}", "output": folder})
    if args.compute.dry_run:
        print_forecast(workload, due, [parts[1][i] for i in held_out])
        return
    update = resolve_micro_batch(workload, folder if resuming else None)
    plan, flags = Plan(parts[0], update, accelerator.num_processes), resolved(args) | resolved(update)
    base = base_facts(args.model.model, inputs.model_folder, tokenizer)
    facts = {"args": flags, "base": base}

    # Optimizer, prepare, reference, resume.
    optimizer = build_optimizer(model, update, accelerator.scaler is not None, args.method.lora_plus_ratio or 1.0)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    identity = {"data": data["sha256"], "base": origin.sha256(), "processes": str(accelerator.num_processes)}
    identity |= {"precision": accelerator.mixed_precision, "general text": general.sha256}
    identity |= {"tokenizer": tokenizer.sha256} if tokenizer.sha256 else {}
    check_same(accelerator, identity)
    training = Training(accelerator, model, optimizer, identity)
    cache = None
    if args.compute.cache_frozen is not None:
        texts = [texts_of(part) for part in parts]
        texts, cache = with_frozen_activations(accelerator, model, args.compute, identity["base"], texts)
        parts = [paired(part, of_part) for part, of_part in zip(parts, texts, strict=True)]
    if cached:  # before a checkpoint changes weights that the reference needs
        strength = 0 if args.method.starts_at_frozen else 1
        parts = with_cached_reference(accelerator, model, args.compute, identity["base"], parts, strength)
    else:  # for training it is computed along the way
        parts[1:] = [with_reference(model, part, accelerator) for part in parts[1:]]
    pairs, validation, test = parts

    def mean_loss(part: list) -> float:
        return float(losses(score_pairs(model, part, accelerator), part, preference).mean())

    def evaluate_whole(part: list, scores: Any) -> dict | None:
        return pair_metrics(scores, part, preference) if part and main_process else None

    record, extra = Record(), None
    if resuming:
        record, extra = load_checkpoint(folder, training, flags)
    if extra is None:
        extra = {"metrics": evaluate_whole(test, references(test))}  # which is what training starts from
        extra["general"] = general_losses(model, general, accelerator)
    open_run(accelerator, folder, resuming, record.step, flags)

    # Loop.
    def loss(batch):  # type: ignore[no-untyped-def]
        reference = reference_in(accelerator, model, batch, cached)  # first, while nothing is kept for a backward pass
        log_probabilities = prepared(batch.tokens, batch.lengths, batch.labels, batch.hidden)
        return pair_loss(log_probabilities, reference, batch, preference)

    line = ProgressLine(plan.examples_in(steps), record.examples, main_process)
    while record.step < steps and not record.stale_for(args.run.early_stop):
        started = time.perf_counter()
        shares = plan.at(record.step)
        chosen = [pairs[i] for share in shares for micro in share for i in micro]
        batches = [collate_pairs([pairs[i] for i in micro]) for micro in shares[rank]]
        lr, count = schedule.lr_at(record.step), len(chosen)
        loss_sum = accumulate(accelerator, prepared, batches, count, loss, (update.seed, record.step))
        norm = apply_update(accelerator, model, optimizer, lr, update.clip_at(record.step, schedule.warmup))
        if norm is None:
            record.add_overflow()
            continue
        record.add_step(loss_sum, count, count, sum(len(p.tokens) for p in chosen), time.perf_counter() - started)
        line.show(len(chosen), loss_sum / count, lr, record.last("val_loss"))

        started, point = time.perf_counter(), {"lr": lr, "grad_norm": norm}
        if due.due(due.evaluate, record.step) and held_out:
            point["val_loss"] = mean_loss([validation[i] for i in held_out])
            if record.improved(point["val_loss"]) and main_process:
                save_best(folder, model, method, facts, tokenizer)
        if due.due(due.log, record.step) or "val_loss" in point:
            accelerator.log(record.add_point(plan.per_epoch, **point), step=record.step)
        record.eval_seconds += time.perf_counter() - started
        if due.due(due.save, record.step) and main_process:
            save_checkpoint(folder, training, record, flags, extra)
    line.close()

    # Final evaluation, of the weights that are kept.
    if record.best_step < 0 or args.run.keep == "last":
        record.best_step = record.step
        if main_process:
            save_best(folder, model, method, facts, tokenizer)
    load_own_state(model, from_main(accelerator, lambda: read_best(folder, model, method)))
    scores, val_scores = (score_pairs(model, part, accelerator) for part in (test, validation))
    metrics, val_metrics = evaluate_whole(test, scores), evaluate_whole(validation, val_scores)
    lost = forgetting(model, general, accelerator, extra["general"], lambda: mean_loss(validation or test))
    close_run(accelerator)
    if not main_process:
        return

    # Results.
    save_learnt(folder, model, origin, before, facts, args.method, args.model, tokenizer)
    write_lines(folder / "predictions.jsonl", predictions(scores, test, inputs.splits.test, preference))
    plot_curves(folder / "curves.png", record.curve, folder.name)
    plot_forgetting(folder / "forgetting.png", lost, folder.name, f"{preference.dpo_loss} loss")
    described: dict[str, Any] = {"args": flags, "environment": environment(accelerator), "model": base, "data": data}
    micro_batch = {"asked": args.update.micro_batch_size, "used": update.micro_batch_size}
    outcome = described | {"parameters": parameters, "micro_batch": micro_batch}
    outcome |= {"frozen_activations": cache and asdict(cache)}
    outcome |= {"reference": {"sha256": identity["base"], "cached": cached}}
    outcome |= measured(accelerator, record)
    outcome |= {"before": extra["metrics"], "forgetting": lost, "val": val_metrics, "test": metrics}
    outcome |= {"notes": outcome_notes(outcome)}
    write_results(folder, outcome)
    close_trackers(accelerator, record.step, outcome)
    print_outcome(folder, outcome, ("reward_accuracy", "reward_margin"))


if __name__ == "__main__":
    run(main, Args, __doc__)
