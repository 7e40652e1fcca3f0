"""Fine-tunes GPT-2 to classify texts: spam, sentiment, entailment, or the classes in your own file.

    accelerate launch scripts/finetune_cls.py --dataset spamassassin --model gpt2-nano
    accelerate launch scripts/finetune_cls.py --dataset enron --lora-rank 16
    accelerate launch scripts/finetune_cls.py --data mine.csv --text-column body --label-column topic

Report sections 1.2 (tasks 2 to 4), 3.1.2 and 3.2. The class is read at the last token of the text.
"""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tasks import Classification
from training.data.sources import Inputs, find_inputs
from training.flags.cli import changed_flags, problems_in, refuse, resolved, run
from training.flags.common import DataArgs, MethodArgs, ModelArgs, RunArgs, UpdateArgs
from training.flags.compute import ComputeArgs
from training.flags.forgetting import ForgettingArgs
from training.flags.method import like_lora
from training.flags.task import HeadArgs, TextArgs
from training.storage.run_folder import check_folder, default_folder, run_name

OFFLINE = "accelerate launch scripts/finetune_cls.py --dataset spamassassin --model gpt2-nano"
# Peak learning rate at width 192 and epochs of each method, chosen on validation mail: README, "Defaults".
DEFAULTS = like_lora(1e-3, 2.0) | {"full": (5e-4, 2.0), "bitfit": (5e-3, 2.0), "head": (1e-2, 2.0)}
UNTRAINED = "  (of a class head with random weights)"


@dataclass(frozen=True)
class Args:
    data: DataArgs
    text: TextArgs
    model: ModelArgs
    head: HeadArgs
    method: MethodArgs
    update: UpdateArgs
    compute: ComputeArgs
    forgetting: ForgettingArgs
    run: RunArgs


def main(args: Args) -> None:
    data, model = args.data, args.model.model
    weights = not args.compute.dry_run
    inputs = find_inputs(data, model, lambda: args.text.task(data.dataset, data.data), OFFLINE, weights)
    refuse(problems_in(args, config=inputs.config))
    classes = inputs.task.classes([e for part in inputs.splits.named().values() for e in part])
    name, spelled = run_name(inputs.task.name, model, args.method.method, args.update.seed)
    folder = args.run.output_dir or default_folder("finetune_cls", name, changed_flags(args), spelled)
    train(
        args,
        inputs,
        classes,
        folder,
        not args.compute.dry_run and check_folder(folder, args.run.overwrite, args.run.resume),
    )


def train(args: Args, inputs: Inputs[Classification], classes: tuple[str, ...], folder: Path, resuming: bool) -> None:
    # Imported here because they take seconds: whatever can be refused without them has been.
    from gpt2_scratch.model import Classifier
    from training.data.batches import Batch, Plan, collate, encode_all_labelled
    from training.data.trained_on import write_trained_on
    from training.evaluation.forgetting import forgetting, general_losses, general_text
    from training.evaluation.inference import classify
    from training.evaluation.metrics import accuracy, classification_metrics, mean_loss, name_of, shown_metrics
    from training.forecast import Workload, print_forecast, resolve_micro_batch
    from training.model.frozen_activations import with_frozen_activations
    from training.model.heads import head_notes, trained_rows
    from training.model.methods import (
        apply_compute,
        apply_method,
        build_classifier,
        build_without_weights,
        load_own_state,
        parameter_counts,
    )
    from training.model.saved import base_facts, read_best, save_adapter, save_best
    from training.run.checkpoint import Training, load_checkpoint, save_checkpoint
    from training.run.launch import close_run, open_run, start
    from training.run.outcome import outcome_notes, print_outcome
    from training.run.plots import plot_curves, plot_forgetting
    from training.run.progress import ProgressLine
    from training.run.record import Record, intervals
    from training.run.results import environment, measured, write_results
    from training.run.summary import data_facts, print_facts
    from training.run.trackers import close_trackers
    from training.step.losses import class_loss
    from training.step.optimizers import build_optimizer
    from training.step.processes import check_same, from_main
    from training.step.schedule import build_schedule
    from training.step.update import accumulate, apply_update
    from training.storage.files import write_lines

    # Accelerator and seed.
    accelerator, resuming = start(args.compute, folder, resuming)
    main_process, rank = accelerator.is_main_process, accelerator.process_index
    method, head, n, tokenizer = args.method.method, args.head, len(classes), inputs.tokenizer

    # Examples and batches.
    text, cut_tail = args.text, args.text.truncate == "tail"
    form = (args.data.max_length, text.pad_to, text.pad_id, cut_tail)
    encoded = {
        name: encode_all_labelled(tokenizer, part, [classes.index(e.label) for e in part], *form)
        for name, part in inputs.splits.named().items()
    }
    examples, validation, test = encoded.values()
    held_out = args.run.evaluated(validation, args.update.batch_size)
    update = args.update.with_defaults(*DEFAULTS[method], inputs.config.width, len(examples))
    steps = update.steps(len(examples))
    args.forgetting.check_examples([*validation, *test])
    general = general_text(args.forgetting, inputs.model_folder, inputs.config, inputs.tokenizer)
    schedule, due = build_schedule(update, steps), intervals(args.run, steps)
    data = data_facts(inputs.splits, encoded, inputs.source) | {"labels": list(classes)}
    data["notes"] += args.update.notes(steps)
    trained_head = trained_rows(inputs.model_folder, classes) if head.head == "linear" else None
    new_head = head.head == "linear" and trained_head is None
    data["notes"] += head_notes(inputs.model_folder, classes, trained_head is not None)

    # Model, adapters and freezing.
    shape: tuple[Any, ...] = (n, head.head_bias, head.head == "lm-token")
    if args.compute.dry_run:
        model = build_without_weights(Classifier, inputs.config, args.model, *shape)
    else:
        shape = (*shape[1:], trained_head)
        model = build_classifier(inputs.model_folder, inputs.config, args.model, n, update.seed, *shape)
    apply_method(model, args.method, update.seed, head.head_training, inputs.weights)
    apply_compute(model, method, args.compute, accelerator.mixed_precision)
    workload = Workload(model, update, accelerator, examples, validation, test, args.compute, general)
    workload = replace(workload, whole_model=method == "full")
    parameters = parameter_counts(model)
    if main_process:
        length = {"updates": f"{steps:,}", "epochs": f"{steps / update.steps_per_epoch(len(examples)):.3g}"}
        print_facts(data, parameters, length | {"lr": f"{update.lr:.3g}", "output": folder})
    if args.compute.dry_run:
        print_forecast(workload, due, held_out)
        return
    update = resolve_micro_batch(workload, folder if resuming else None)
    plan, flags = Plan(examples, update, accelerator.num_processes), resolved(args) | resolved(update)
    base = base_facts(args.model.model, inputs.model_folder, tokenizer)
    facts = {"args": flags, "base": base, "labels": list(classes), "pad_token_id": tokenizer.pad}

    # Optimizer, prepare, resume.
    optimizer = build_optimizer(model, update, accelerator.scaler is not None, args.method.lora_plus_ratio or 1.0)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    identity = {"data": data["sha256"], "base": base["sha256"], "processes": str(accelerator.num_processes)}
    identity |= {"precision": accelerator.mixed_precision, "general text": general.sha256, "labels": repr(classes)}
    identity |= {"tokenizer": tokenizer.sha256} if tokenizer.sha256 else {}
    check_same(accelerator, identity)
    training = Training(accelerator, model, optimizer, identity)

    def task_metric() -> float:
        return accuracy(classify(model, validation or test, accelerator, n))

    record, extra = Record(), None
    if resuming:
        record, extra = load_checkpoint(folder, training, flags)
    cache = None
    if args.compute.cache_frozen is not None:
        plain = (examples, validation, test, held_out)
        parts, cache = with_frozen_activations(accelerator, model, args.compute, base["sha256"], plain)
        examples, validation, test, held_out = parts
    if extra is None:
        rows = classify(model, test, accelerator, n)
        extra = {"metrics": classification_metrics(rows, classes) if rows and main_process else None}
        extra["general"] = general_losses(model, general, accelerator)
    open_run(accelerator, folder, resuming, record.step, flags)

    # Loop.
    def loss(batch: Batch):  # type: ignore[no-untyped-def]
        return class_loss(prepared(batch.tokens, batch.lengths, batch.hidden), batch.labels)[0]

    line = ProgressLine(plan.examples_in(steps), record.examples, main_process)
    while record.step < steps and not record.stale_for(args.run.early_stop):
        started = time.perf_counter()
        shares = plan.at(record.step)
        chosen = [examples[i] for share in shares for micro in share for i in micro]
        batches = [collate([examples[i] for i in micro]) for micro in shares[rank]]
        lr, count = schedule.lr_at(record.step), sum(e.count for e in chosen)
        loss_sum = accumulate(accelerator, prepared, batches, count, loss, (update.seed, record.step))
        norm = apply_update(accelerator, model, optimizer, lr, update.clip_at(record.step, schedule.warmup))
        if norm is None:
            record.add_overflow()
            continue
        record.add_step(loss_sum, count, len(chosen), sum(len(e.tokens) for e in chosen), time.perf_counter() - started)
        line.show(len(chosen), loss_sum / count, lr, record.last("val_loss"))

        started, point = time.perf_counter(), {"lr": lr, "grad_norm": norm}
        if due.due(due.evaluate, record.step) and held_out:
            rows = classify(model, held_out, accelerator, n)
            point |= {"val_loss": mean_loss(rows), "val_accuracy": accuracy(rows)}
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
    rows, val_rows = (classify(model, part, accelerator, n) for part in (test, validation))
    lost = forgetting(model, general, accelerator, extra["general"], task_metric)
    close_run(accelerator)
    if not main_process:
        return

    # Results.
    save_adapter(folder, model, method, facts)
    metrics = {
        name: classification_metrics(r, classes) if r else None for name, r in (("val", val_rows), ("test", rows))
    }
    predictions = [
        {"id": r.id, "label": classes[r.label], "prediction": name_of(r.prediction, classes)}
        | {"probabilities": dict(zip(classes, r.probabilities, strict=True)), "loss": r.loss}
        for r in rows
    ]
    write_lines(folder / "predictions.jsonl", predictions)
    write_trained_on(folder, inputs.splits)
    plot_curves(folder / "curves.png", record.curve, folder.name, "val_accuracy")
    plot_forgetting(folder / "forgetting.png", lost, folder.name, "accuracy")
    described: dict[str, Any] = {"args": flags, "environment": environment(accelerator), "model": base, "data": data}
    micro_batch = {"asked": args.update.micro_batch_size, "used": update.micro_batch_size}
    outcome = described | {"parameters": parameters, "micro_batch": micro_batch}
    outcome |= {"frozen_activations": cache and asdict(cache)}
    outcome |= measured(accelerator, record)
    outcome |= {"before": extra["metrics"], "forgetting": lost} | metrics
    outcome |= {"notes": outcome_notes(outcome)}
    write_results(folder, outcome)
    close_trackers(accelerator, record.step, outcome)
    print_outcome(folder, outcome, shown_metrics(), UNTRAINED if new_head else "")
    if not head.exportable:
        print("note    this head exists here alone: the model cannot be exported to transformers or PEFT")


if __name__ == "__main__":
    run(main, Args, __doc__)
