"""Fine-tunes GPT-2 to classify texts: spam, sentiment, entailment, or the classes in your own file.

    accelerate launch scripts/finetune_cls.py --dataset spamassassin --model gpt2-nano
    accelerate launch scripts/finetune_cls.py --dataset enron --lora-rank 16
    accelerate launch scripts/finetune_cls.py --data mine.csv --text-column body --label-column topic

Report sections 1.2 (tasks 2 to 4), 3.1.2 and 3.2. The class is read at the last token of the text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks import Classification
from training.data.sources import Inputs, find_inputs
from training.flags.cli import run
from training.flags.finetuning import FineTuneArgs, run_folder, within_context
from training.flags.method import like_lora
from training.flags.task import HeadArgs, TextArgs
from training.flags.update import FEWEST_UPDATES
from training.storage.run_folder import VALIDATION

OFFLINE = "accelerate launch scripts/finetune_cls.py --dataset spamassassin --model gpt2-nano"
# Peak learning rate at width 192 and epochs of each method, chosen on validation mail: docs/methods.md, "Defaults".
DEFAULTS = like_lora(1e-3, 2.0) | {"full": (5e-4, 2.0), "bitfit": (5e-3, 2.0), "head": (1e-2, 2.0)}
UNTRAINED = "  (of a class head with random weights)"


@dataclass(frozen=True)
class Args(FineTuneArgs):
    text: TextArgs
    head: HeadArgs


def main(args: Args) -> None:
    inputs = find_inputs(args, args.text.task, OFFLINE)
    train(within_context(args, inputs.config), inputs, *run_folder(args, inputs.task.name))


def train(args: Args, inputs: Inputs[Classification], folder: Path, resuming: bool) -> None:
    from training.loop import (
        Batch, Plan, Row, Tensor, accumulate, accuracy, apply_compute, apply_method, apply_update,
        build_classifier, build_optimizer, cached, class_loss, classification_metrics, classify, collate,
        encode_all_labelled, encode_splits, forgetting, head_notes, losses_at_start, mean_loss, open_finetuning,
        prediction_lines, prepare, print_facts, print_forecast, resolve_micro_batch, resolve_update,
        shown_metrics, start, trained_rows, weights_hash, without_probabilities, workload_of)  # fmt: skip

    # Accelerator.
    accelerator, resuming = start(args.compute, folder, resuming)
    method, head, text = args.method, args.head, args.text

    # Examples and batches.
    classes = inputs.task.classes(inputs.splits.examples())

    def encoded(part: list) -> list:
        labels, cut_tail = [classes.index(e.label) for e in part], text.truncate == "tail"
        form = args.data.max_length, text.pad_to, text.pad_id, cut_tail
        return encode_all_labelled(inputs.tokenizer, part, labels, *form)

    data = encode_splits(args, inputs, encoded, labels=classes)
    update, schedule, due = resolve_update(args, DEFAULTS, inputs.config.width, data, FEWEST_UPDATES)

    # Model, adapters and freezing.
    head_rows = trained_rows(inputs.model_folder, classes, head.head_bias) if head.head == "linear" else None
    data.facts.notes.extend(head.notes() + head_notes(inputs.model_folder, classes, head_rows is not None))
    base = None if args.compute.dry_run else inputs.model_folder
    model = build_classifier(
        base, inputs.config, args.model, len(classes), update.seed, head.head_bias, head.head == "lm-token", head_rows
    )
    apply_method(model, method, update.seed, head.head_training, inputs.weights)
    apply_compute(model, method.method, args.compute, accelerator.mixed_precision)
    workload = workload_of(args, update, accelerator, model, data)
    print_facts(accelerator, data, model, update, due.steps, folder)
    if args.compute.dry_run:
        print_forecast(workload, due, args.run.watched(data.validation, update.batch_size))
        return
    update = resolve_micro_batch(workload, folder if resuming else None)

    # Prepare, optimizer, resume.
    prepared = prepare(accelerator, model)
    optimizer = build_optimizer(model, update, accelerator.scaler is not None, method.lora_plus_ratio or 1.0)
    optimizer = accelerator.prepare(optimizer)
    plan, frozen = Plan(data.train, update, accelerator.num_processes), weights_hash(inputs.model_folder)
    if args.compute.cache_frozen is not None:
        data = cached(accelerator, model, args.compute, frozen, data)
    held_out = args.run.watched(data.validation, update.batch_size)
    run = open_finetuning(accelerator, folder, resuming, args, update, data, model, optimizer, due, plan)

    def evaluate(part: Sequence) -> list[Row]:
        return classify(model, part, accelerator, len(classes))

    before, general = run.begin(
        lambda: (without_probabilities(evaluate(data.before)), losses_at_start(model, data, accelerator, args, frozen))
    )

    # Loop.
    def loss(batch: Batch) -> Tensor:
        return class_loss(prepared(batch.tokens, batch.lengths, batch.hidden), batch.labels)[0]

    while run.goes_on():
        chosen, micro_batches = plan.shares(run.step, data.train, accelerator.process_index)
        lr, count = schedule.lr_at(run.step), sum(e.count for e in chosen)
        batches = [collate(examples) for examples in micro_batches]
        loss_sum = accumulate(accelerator, prepared, batches, count, loss, (update.seed, run.step))
        norm = apply_update(accelerator, model, optimizer, lr, update.clip_at(run.step, schedule.warmup))
        run.stepped(norm, loss_sum, count, lr, sum(len(e.tokens) for e in chosen), len(chosen))
        if run.evaluates and held_out:
            rows = evaluate(held_out)
            run.evaluated(mean_loss(rows), val_accuracy=accuracy(rows))
        run.remember()

    # Final evaluation, of the weights that are kept.
    run.load_best(args.run.keep)
    rows, held = evaluate(data.test), evaluate(data.validation)
    watched = data.validation or data.test
    lost = forgetting(model, data.general, accelerator, general, lambda: accuracy(evaluate(watched)))
    if run.closes(prepared):
        parts = {"before": [Row(*rest) for rest in before], "val": held, "test": rows}
        found = {name: classification_metrics(part, classes) for name, part in parts.items() if part}
        lines = {"predictions.jsonl": prediction_lines(rows, classes), VALIDATION: prediction_lines(held, classes)}
        untrained = UNTRAINED if head.head == "linear" and head_rows is None else ""
        run.finish(lines, shown_metrics(), "accuracy", untrained, **found, forgetting=lost)


if __name__ == "__main__":
    run(main, Args, __doc__)
