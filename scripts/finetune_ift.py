"""Fine-tunes GPT-2 to follow instructions: the bundled ones, Alpaca, or the records in your own file.

    accelerate launch scripts/finetune_ift.py --dataset instructions --model gpt2-nano
    accelerate launch scripts/finetune_ift.py --dataset alpaca --model gpt2-large --lora-rank 16
    accelerate launch scripts/finetune_ift.py --data mine.jsonl --prompt-column question --response-column answer

Report sections 1.2 (task 1), 3.1.1 and 3.2. The loss is on the response and the end of text that follows it.
"""

from dataclasses import dataclass
from pathlib import Path

from gpt2_scratch.own_tokenizer import needed_end
from tasks import Instructions
from training.data.sources import Inputs, find_inputs
from training.flags.cli import run
from training.flags.finetuning import FineTuneArgs, run_folder, within_context
from training.flags.method import like_lora
from training.flags.task import GenerationArgs, PromptArgs
from training.flags.update import FEWEST_UPDATES
from training.storage.run_folder import VALIDATION

OFFLINE = "accelerate launch scripts/finetune_ift.py --dataset instructions --model gpt2-nano"
# Peak learning rate at width 192 and epochs of each method, chosen on validation records: docs/methods.md, "Defaults".
DEFAULTS = like_lora(5e-3, 4.0) | {"full": (5e-4, 4.0), "bitfit": (5e-3, 4.0), "head": (5e-4, 4.0)}
SHOWN = ("response_perplexity", "text_perplexity")


@dataclass(frozen=True)
class Args(FineTuneArgs):
    prompt: PromptArgs
    generation: GenerationArgs


def main(args: Args) -> None:
    inputs = find_inputs(args, args.prompt.task, OFFLINE)
    needed_end(inputs.tokenizer, args.model.model)
    train(within_context(args, inputs.config), inputs, *run_folder(args, inputs.task.name))


def train(args: Args, inputs: Inputs[Instructions], folder: Path, resuming: bool) -> None:
    from training.loop import (
        Batch, Plan, Row, Sampling, Tensor, accumulate, answer, apply_compute, apply_method, apply_update,
        build_language_model, build_optimizer, cached, collate, encode_all_instructions, encode_splits,
        forgetting, generation_lines, head_notes, loss_lines, losses_at_start, mean_loss, open_finetuning,
        perplexities, prepare, print_facts, print_forecast, prompts_of, resolve_micro_batch, resolve_update,
        score_targets, score_texts, start, token_loss, weights_hash, with_response_labelled, workload_of)  # fmt: skip

    # Accelerator.
    accelerator, resuming = start(args.compute, folder, resuming)
    method, prompt, generation = args.method, args.prompt, args.generation

    # Examples and batches.
    def encoded(part: list) -> list:
        form = args.data.max_length, prompt.mask_prompt, prompt.response_header
        return encode_all_instructions(inputs.tokenizer, part, *form)

    data = encode_splits(args, inputs, encoded, ("no_room_for_response",))
    update, schedule, due = resolve_update(args, DEFAULTS, inputs.config.width, data, FEWEST_UPDATES)
    questions, prompts = prompts_of(inputs, data, generation.new_tokens, prompt.response_header)

    # Model, adapters and freezing.
    data.facts.notes.extend(head_notes(inputs.model_folder))
    model = build_language_model(None if args.compute.dry_run else inputs.model_folder, inputs.config, args.model)
    apply_method(model, method, update.seed, source=inputs.weights)
    apply_compute(model, method.method, args.compute, accelerator.mixed_precision)
    workload = workload_of(args, update, accelerator, model, data, prompts=prompts, new_tokens=generation.new_tokens)
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
    sampling = Sampling(generation.temperature, generation.top_k, generation.top_p, update.seed)

    def answers(wanted: bool = True) -> list[dict]:
        found = answer(model, inputs.tokenizer, prompts * wanted, accelerator, generation.new_tokens, sampling)
        return [one._asdict() for one in found]

    def evaluate(part: list) -> tuple[list[Row], dict | None]:
        rows = score_texts(model, part, accelerator)  # of the targets, of the response, of the whole text
        return rows[1], perplexities(*rows) if part and accelerator.is_main_process else None

    before, untuned, general = run.begin(
        lambda: (
            evaluate(data.before)[1],
            answers(data.tests_base),
            losses_at_start(model, data, accelerator, args, frozen),
        )
    )

    # Loop.
    def loss(batch: Batch) -> Tensor:
        return token_loss(prepared(batch.tokens, batch.lengths, batch.labels, batch.hidden))[0]

    while run.goes_on():
        chosen, micro_batches = plan.shares(run.step, data.train, accelerator.process_index)
        lr, count = schedule.lr_at(run.step), sum(e.count for e in chosen)
        batches = [collate(examples) for examples in micro_batches]
        loss_sum = accumulate(accelerator, prepared, batches, count, loss, (update.seed, run.step))
        norm = apply_update(accelerator, model, optimizer, lr, update.clip_at(run.step, schedule.warmup))
        run.stepped(norm, loss_sum, count, lr, sum(len(e.tokens) for e in chosen), len(chosen))
        if run.evaluates and held_out:
            run.evaluated(mean_loss(score_targets(model, held_out, accelerator)))
        run.remember()

    # Final evaluation, of the weights that are kept.
    run.load_best(args.run.keep)
    (rows, test), (held, val), after = evaluate(data.test), evaluate(data.validation), answers()
    responses = [with_response_labelled(e) for e in data.validation or data.test]
    lost = forgetting(
        model, data.general, accelerator, general, lambda: mean_loss(score_targets(model, responses, accelerator))
    )
    if run.closes(prepared):
        lines = {"generations.jsonl": generation_lines(questions, untuned, after, rows), VALIDATION: loss_lines(held)}
        axis = "response loss (nats a token)"
        run.finish(lines, SHOWN, axis, before=before, val=val, test=test, forgetting=lost)


if __name__ == "__main__":
    run(main, Args, __doc__)
