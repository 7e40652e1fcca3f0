"""Applies a trained model to your own rows: labels with probabilities, or responses; metrics where there are labels.

    python scripts/predict.py --run runs/demo --data mails.csv
    python scripts/predict.py --run runs/demo --data mails.csv --text-column title text --output labelled.csv
    python scripts/predict.py --model merged --data mails.csv --text-column body --keep-columns id

The output has a line for each row of the file, in order, as JSON lines, csv or tsv by the ending of --output. A row
without text is marked `empty`, one with something other than text `unreadable`; neither gets a prediction. What is too
long for the model is marked `cut` and shown as far as it was read. --model takes any folder into which finetune_cls,
finetune_ift, merge_lora, PEFT or transformers wrote a GPT-2.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks import Task, read_rows
from training.evaluation.applied import Applied, find_applied, renamed
from training.evaluation.prediction_output import kept_names, metrics_file, output_problems, write_predictions
from training.evaluation.questions import Questions, Tally, ask, check, columns_of, notes, respelled, tally
from training.flags.cli import flag, given_flags, refuse, run, speaks
from training.flags.prediction import ApplyArgs, OutputArgs
from training.flags.task import PromptArgs, TextArgs, group_of


@dataclass(frozen=True)
class Args:
    what: ApplyArgs
    output: OutputArgs
    text: TextArgs
    prompt: PromptArgs


@dataclass(frozen=True)
class Job:
    """The work to be done; only the weights can still give a reason to refuse it."""

    applied: Applied
    text: TextArgs
    prompt: PromptArgs
    questions: Questions
    counts: Tally
    kept: dict[str, str]
    output: Path


def unused_flags(args: Args, classifies: bool) -> list[str]:
    """Returns a problem for each flag that means nothing for this kind of model."""
    kind = "a classifier" if classifies else "a language model"
    if classifies:
        names = [*given_flags(args.prompt), *({"new_tokens"} & {*given_flags(args.what)})]
    else:
        names = [name for name in given_flags(args.text) if name not in ("text_column", "label_column")]
    return [f"{flag(name)}: means nothing for {kind}; leave it out" for name in names]


def settings_of(args: Args, applied: Applied) -> tuple[Task, TextArgs, PromptArgs]:
    """Returns the task of the training as changed by the flags, or that of a file with the columns of the flags.

    For a language model, --text-column and --label-column may name the columns of prompt, input and response too.
    """
    text, prompt = args.text, args.prompt
    refuse(unused_flags(args, applied.labels is not None))
    dataset, data = applied.flags.get("dataset"), Path(applied.flags.get("data") or args.what.data)
    if applied.labels is not None:
        text = group_of(TextArgs, applied.flags | given_flags(text))
        return text.task(dataset, data), text, prompt
    if len(text.text_column) > 2:
        raise ValueError("--text-column: for a language model, name the column of the prompt and that of its input")
    columns: dict[str, str] = dict(zip(("prompt_column", "input_column"), text.text_column, strict=False))
    columns |= {"response_column": text.label_column} if text.label_column else {}
    if twice := [flag(name) for name in columns if given_flags(prompt).get(name)]:
        other = "--label-column" if twice == ["--response-column"] else "--text-column"
        raise ValueError(f"{twice[0]}: {other} names the same column of a language model; give one of the two")
    prompt = group_of(PromptArgs, applied.flags | columns | given_flags(prompt))
    return prompt.task(dataset, data), text, prompt


def prepare(args: Args) -> Job:
    """Prepares the work, and refuses all that can be refused without a heavy library."""
    what, out = args.what, args.output
    applied = find_applied(what.run, what.adapter, what.model)
    if applied.labels is not None and args.text.labels:
        applied = renamed(applied, args.text.labels)
    home = applied.folder if applied.kind == "run" else Path()
    output = out.output or home / f"predict-{what.data.stem}.jsonl"
    refuse(output_problems(output, out.overwrite, what.data, applied.folder))
    task, text, prompt = settings_of(args, applied)
    classifies = applied.labels is not None
    flags = ("--text-column", "--label-column") if classifies else ("--prompt-column", "--response-column")
    named = args.text.label_column or (None if classifies else args.prompt.response_column)
    questions = ask(task, read_rows(what.data, what.encoding), flags, named)
    if applied.labels is not None:
        questions = respelled(questions, applied.labels)
    counts = tally(questions, applied)
    check(questions, counts, applied, flags, named)
    kept = kept_names(out.keep_columns, questions.present, columns_of(questions, applied))
    return Job(applied, text, prompt, questions, counts, kept, output)


def main(args: Args) -> None:
    job = prepare(args)
    target = "response" if job.applied.labels is None else "label"
    if speaks():
        print(f"model   {job.applied.said}")
        print(
            f"data    {job.questions.source.origin}: {job.counts.rows:,} rows, {job.counts.labelled:,} with a {target}"
        )
        for note in notes(job.questions, job.counts, job.applied, target):
            print(f"note    {note}", flush=True)
    predict(args, job)


def predict(args: Args, job: Job) -> None:
    # Imported here because they take seconds: whatever can be refused without them has been.
    from accelerate import Accelerator

    from training.evaluation.prediction import lines, predictor, reading_notes
    from training.run.launch import check_launched
    from training.step.processes import part

    accelerator = Accelerator()
    check_launched(accelerator)
    by = predictor(job.applied, accelerator, args.what, job.text, job.prompt)
    rows = lines(by, job.questions, job.applied, job.kept)
    if accelerator.is_main_process:
        for note in reading_notes(by.tokenizer, job.questions):
            print(f"note    {note}", flush=True)
        columns = columns_of(job.questions, job.applied, job.kept.values())
        write_predictions(job.output, rows, columns, metrics_file(job.output))
        report(by, job)
    else:
        for _ in rows:
            pass
    part(accelerator)


def report(by: Any, job: Job) -> None:
    """Prints what was written, and prints and writes the metrics over rows with a label or response.

    Where some of these rows were trained on, metrics over the others stand beside them.
    """
    from training.run.printed import only_answer, print_classes
    from training.storage.files import write_json

    cut = f", {by.cut:,} cut to the {by.longest:,} tokens that are read" * bool(by.cut)
    print(f"{job.counts.rows:,} rows in {job.output}{cut}")
    for note in by.notes():
        print(f"note    {note}")
    metrics = by.metrics()
    if not metrics:
        return
    content = metrics | {"rows": job.counts.facts() | {"cut": by.cut} | by.left_out()}
    some_seen = any(part for part, _ in by.scored)
    if some_seen:
        print("all rows, including those that the model has seen")
    show("", metrics)
    if "classes" in metrics:
        print_classes(metrics["classes"], metrics_file(job.output).name)
    if some_seen:
        new = by.metrics(new_only=True)
        content |= {"new_rows": new} if new else {}
        print("rows that are new to the model" + ("" if new else ": none has a label or response"))
        show("  ", new)
    if only := only_answer(metrics, job.applied.labels or ()):
        print(f"note    the model answers {only!r} to every row that has a label")
    write_json(metrics_file(job.output), content)
    print(f"metrics {metrics_file(job.output)}")


def show(indent: str, metrics: dict[str, Any]) -> None:
    from evidence.intervals import shown

    for name, m in metrics.items():
        if "value" in m:  # the others are tables and counts
            always = f", always {m['label']!r}" if "label" in m else ""
            print(f"{indent + name:<20} {shown(m)} n {m['n']:,}{always}")


if __name__ == "__main__":
    run(main, Args, __doc__)
