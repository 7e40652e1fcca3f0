"""Fine-tunes GPT-2 to follow instructions: the bundled ones, Alpaca, or the records in your own file.

    accelerate launch scripts/finetune_ift.py --dataset instructions --model gpt2-nano
    accelerate launch scripts/finetune_ift.py --dataset alpaca --model gpt2-large --lora-rank 16
    accelerate launch scripts/finetune_ift.py --data mine.jsonl --prompt-column question --response-column answer

Report sections 1.2 (task 1), 3.1.1 and 3.2. The loss is on the response and the end of text that follows it.
"""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gpt2_scratch.own_tokenizer import needed_end
from tasks import Instructions
from training.data.sources import Inputs, find_inputs
from training.flags.cli import changed_flags, problems_in, refuse, resolved, run
from training.flags.common import DataArgs, MethodArgs, ModelArgs, RunArgs, UpdateArgs
from training.flags.compute import ComputeArgs
from training.flags.forgetting import ForgettingArgs
from training.flags.method import like_lora
from training.flags.task import GenerationArgs, PromptArgs
from training.storage.run_folder import check_folder, default_folder, run_name

OFFLINE = "accelerate launch scripts/finetune_ift.py --dataset instructions --model gpt2-nano"
# Peak learning rate at width 192 and epochs of each method, chosen on validation records: README, "Defaults".
DEFAULTS = like_lora(5e-3, 4.0) | {"full": (5e-4, 4.0), "bitfit": (5e-3, 4.0), "head": (5e-4, 4.0)}


@dataclass(frozen=True)
class Args:
    data: DataArgs
    prompt: PromptArgs
    model: ModelArgs
    method: MethodArgs
    update: UpdateArgs
    compute: ComputeArgs
    forgetting: ForgettingArgs
    generation: GenerationArgs
    run: RunArgs


def main(args: Args) -> None:
    data, model = args.data, args.model.model
    weights = not args.compute.dry_run
    inputs = find_inputs(data, model, lambda: args.prompt.task(data.dataset, data.data), OFFLINE, weights)
    needed_end(inputs.tokenizer, model)
    refuse(problems_in(args, config=inputs.config))
    name, spelled = run_name(inputs.task.name, model, args.method.method, args.update.seed)
    folder = args.run.output_dir or default_folder("finetune_ift", name, changed_flags(args), spelled)
    train(args, inputs, folder, not args.compute.dry_run and check_folder(folder, args.run.overwrite, args.run.resume))


def train(args: Args, inputs: Inputs[Instructions], folder: Path, resuming: bool) -> None:
    # Imported here because they take seconds: whatever can be refused without them has been.
    from gpt2_scratch.generate import Sampling
    from gpt2_scratch.model import LanguageModel
    from training.data.batches import (
        Batch,
        Plan,
        collate,
        encode_all_instructions,
        encode_prompt,
        with_response_labelled,
    )
    from training.data.trained_on import write_trained_on
    from training.evaluation.forgetting import forgetting, general_losses, general_text
    from training.evaluation.inference import answer, score_targets, score_texts
    from training.evaluation.metrics import Row, mean_loss, perplexities
    from training.forecast import Workload, print_forecast, resolve_micro_batch
    from training.model.frozen_activations import with_frozen_activations
    from training.model.heads import head_notes
    from training.model.methods import (
        apply_compute,
        apply_method,
        build_language_model,
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
    from training.step.losses import token_loss
    from training.step.optimizers import build_optimizer
    from training.step.processes import check_same, from_main
    from training.step.schedule import build_schedule
    from training.step.update import accumulate, apply_update
    from training.storage.files import write_lines

    # Accelerator and seed.
    accelerator, resuming = start(args.compute, folder, resuming)
    main_process, rank = accelerator.is_main_process, accelerator.process_index
    method, prompt, tokenizer = args.method.method, args.prompt, inputs.tokenizer

    # Examples and batches.
    form = (args.data.max_length, prompt.mask_prompt, prompt.response_header)
    encoded = {name: encode_all_instructions(tokenizer, part, *form) for name, part in inputs.splits.named().items()}
    data = data_facts(inputs.splits, encoded, inputs.source)
    examples, validation, test = ([e for e in part if e.room] for part in encoded.values())
    data["skipped"]["no_room_for_response"] = sum(not e.room for part in encoded.values() for e in part)
    if not examples:
        raise ValueError(f"--max-length {args.data.max_length}: no training example has room for its response")
    held_out = args.run.evaluated(validation, args.update.batch_size)
    update = args.update.with_defaults(*DEFAULTS[method], inputs.config.width, len(examples))
    steps = update.steps(len(examples))
    data["notes"] += args.update.notes(steps) + head_notes(inputs.model_folder, None, used=False)
    args.forgetting.check_examples([*validation, *test])
    general = general_text(args.forgetting, inputs.model_folder, inputs.config, inputs.tokenizer)
    schedule, due = build_schedule(update, steps), intervals(args.run, steps)
    asked = {e.id for e in test}
    questions = [e for e in inputs.splits.test if e.id in asked]
    longest = inputs.config.context - 1 if args.generation.new_tokens else 0
    prompts = [encode_prompt(tokenizer, e, longest, prompt.response_header) for e in questions if longest]

    # Model, adapters and freezing.
    if args.compute.dry_run:
        model = build_without_weights(LanguageModel, inputs.config, args.model)
    else:
        model = build_language_model(inputs.model_folder, inputs.config, args.model)
    apply_method(model, args.method, update.seed, source=inputs.weights)
    apply_compute(model, method, args.compute, accelerator.mixed_precision)
    workload = Workload(model, update, accelerator, examples, validation, test, args.compute, general)
    workload = replace(workload, prompts=prompts, new_tokens=args.generation.new_tokens, whole_model=method == "full")
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
    facts = {"args": flags, "base": base}

    # Optimizer, prepare, resume.
    optimizer = build_optimizer(model, update, accelerator.scaler is not None, args.method.lora_plus_ratio or 1.0)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    identity = {"data": data["sha256"], "base": base["sha256"], "processes": str(accelerator.num_processes)}
    identity |= {"precision": accelerator.mixed_precision, "general text": general.sha256}
    identity |= {"tokenizer": tokenizer.sha256} if tokenizer.sha256 else {}
    check_same(accelerator, identity)
    training = Training(accelerator, model, optimizer, identity)
    generation = args.generation
    sampling = Sampling(generation.temperature, generation.top_k, generation.top_p, update.seed)

    def answers() -> list[dict]:
        return [a._asdict() for a in answer(model, tokenizer, prompts, accelerator, generation.new_tokens, sampling)]

    def evaluate_whole(part: list) -> tuple[dict | None, list[Row]]:
        """Loss on what is trained on, perplexity of the response and of the whole text, None of nothing; then each
        response's loss."""
        rows = score_texts(model, part, accelerator)
        return perplexities(*rows) if part and main_process else None, rows[1]

    def task_metric() -> float:
        part = [with_response_labelled(e) for e in validation or test]
        return mean_loss(score_targets(model, part, accelerator))

    record, extra = Record(), None
    if resuming:
        record, extra = load_checkpoint(folder, training, flags)
    cache = None
    if args.compute.cache_frozen is not None:
        plain = (examples, validation, test, held_out)
        parts, cache = with_frozen_activations(accelerator, model, args.compute, base["sha256"], plain)
        examples, validation, test, held_out = parts
    if extra is None:
        extra = {"metrics": evaluate_whole(test)[0], "answers": answers()}
        extra["general"] = general_losses(model, general, accelerator)
    open_run(accelerator, folder, resuming, record.step, flags)

    # Loop.
    def loss(batch: Batch):  # type: ignore[no-untyped-def]
        return token_loss(prepared(batch.tokens, batch.lengths, batch.labels, batch.hidden))[0]

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
            point["val_loss"] = mean_loss(score_targets(model, held_out, accelerator))
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
    metrics, references = evaluate_whole(test)
    val_metrics, after = evaluate_whole(validation)[0], answers()
    lost = forgetting(model, general, accelerator, extra["general"], task_metric)
    close_run(accelerator)
    if not main_process:
        return

    # Results.
    save_adapter(folder, model, method, facts)
    generations = [
        {"id": e.id, "instruction": e.instruction, "input": e.input, "reference": e.response, "kind": e.kind}
        | {"before": before["text"], "response": now["text"], "stopped": now["stopped"]}
        | {"reference_loss": row.loss, "reference_tokens": row.targets}
        for e, before, now, row in zip(questions, extra["answers"], after, references, strict=bool(prompts))
    ]
    write_lines(folder / "generations.jsonl", generations)
    write_trained_on(folder, inputs.splits)
    plot_curves(folder / "curves.png", record.curve, folder.name)
    plot_forgetting(folder / "forgetting.png", lost, folder.name, "response loss (nats a token)")
    described: dict[str, Any] = {"args": flags, "environment": environment(accelerator), "model": base, "data": data}
    micro_batch = {"asked": args.update.micro_batch_size, "used": update.micro_batch_size}
    outcome = described | {"parameters": parameters, "micro_batch": micro_batch}
    outcome |= {"frozen_activations": cache and asdict(cache)}
    outcome |= measured(accelerator, record)
    outcome |= {"before": extra["metrics"], "forgetting": lost, "val": val_metrics, "test": metrics}
    outcome |= {"notes": outcome_notes(outcome)}
    write_results(folder, outcome)
    close_trackers(accelerator, record.step, outcome, generations)
    print_outcome(folder, outcome, ("response_perplexity", "text_perplexity"))


if __name__ == "__main__":
    run(main, Args, __doc__)
