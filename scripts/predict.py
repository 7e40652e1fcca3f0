"""Applies a fine-tuned model to your own rows: labels with probabilities, or responses; metrics where there are labels.

    python scripts/predict.py --run runs/demo --data mails.csv
    python scripts/predict.py --run runs/demo --data mails.csv --text-column title text --output labelled.jsonl

One JSON line a row of the file, in order, none dropped. A prompt too long for the model loses the end of its input; its
line has "cut": true. A text to classify stands in its line as far as it was read (--max-length of the run).
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks import Columns, Task, read_rows
from training.cli import at_least, run
from training.run_folder import read_run
from training.task_args import PromptArgs, TextArgs, group_of


@dataclass(frozen=True)
class Args:
    run: Path
    """folder of a finished run of finetune_cls or finetune_ift"""
    data: Path
    """csv, tsv, json, jsonl or parquet file, or a folder of them"""
    output: Path | None = None
    """JSON lines; None: <run>/predict-<name of the data>.jsonl"""
    text_column: tuple[str, ...] = ()
    """column or columns of the text, or of the instruction and its input; none given: those of the run"""
    label_column: str | None = None
    """column of the class or response to compare with; None: that of the run, where the file has it"""
    new_tokens: int = 128
    """most tokens of a response"""

    def problems(self) -> list[str]:
        return at_least(self, 1, "new_tokens")


def main(args: Args) -> None:
    results = read_run(args.run)
    if "dpo_loss" in results["args"]:
        raise ValueError(f"--run {args.run}: is a run of finetune_dpo; scripts/generate.py asks it")
    output = args.output or args.run / f"predict-{args.data.stem}.jsonl"
    if output.resolve() == args.data.resolve():
        raise ValueError(f"--output {output}: is the data itself; choose another file")
    classifies = "labels" in results["data"]
    flags = results["args"]
    source = flags["dataset"], Path(flags["data"]) if flags["data"] else None
    task: Task = group_of(TextArgs, flags).task(*source) if classifies else group_of(PromptArgs, flags).task(*source)
    rows = read_rows(args.data).rows
    columns = choose_columns(task, rows, args)
    examples: list[Any] = [task.example(i, row, columns) for i, row in enumerate(rows)]
    if classifies:
        unknown = sorted({e.label for e in examples if e.label is not None} - set(results["data"]["labels"]))
        if unknown and args.label_column is not None:
            raise ValueError(
                f"--label-column {columns.target}: labels {', '.join(map(repr, unknown[:8]))} are unknown to the run, "
                f"which has {', '.join(results['data']['labels'])}"
            )
        if unknown:
            print(f"column {columns.target!r} has labels that the run does not know; they count as no label")
            examples = [replace(e, label=None) if e.label in unknown else e for e in examples]
    predict(args, results, examples, output)


def choose_columns(task: Task, rows: list[dict[str, Any]], args: Args) -> Columns:
    """Columns named by flags, else the run's; the target may be absent."""
    if args.text_column:
        task = replace(task, columns=tuple(Columns(args.text_column, c.target) for c in task.columns))
    if args.label_column is not None:
        task = replace(task, columns=tuple(Columns(c.inputs, args.label_column) for c in task.columns))
    return task.columns_of(rows, target_needed=args.label_column is not None)


def predict(args: Args, results: dict[str, Any], examples: list[Any], output: Path) -> None:
    # Imported here because they take seconds: whatever can be refused without them has been.
    from accelerate import Accelerator

    from training.files import write_json, write_lines
    from training.saved import rebuild

    accelerator = Accelerator()
    model = rebuild(args.run, results).to(accelerator.device)
    act = label if "labels" in results["data"] else respond
    lines, metrics = act(args, results, examples, model, accelerator)
    if accelerator.is_main_process:
        write_lines(output, lines)
        cut = sum("cut" in line for line in lines)
        print(f"{len(lines):,} rows in {output}" + f", {cut:,} with a prompt that was cut" * bool(cut))
    if metrics and accelerator.is_main_process:
        write_json(output.with_suffix(".metrics.json"), metrics)
        for name, m in metrics.items():
            if name != "confusion_matrix":
                print("{:<20} {value:.4f} [{low:.4f}, {high:.4f}] n {n:,}".format(name, **m))


def label(args: Args, results: dict[str, Any], examples: list[Any], model: Any, accelerator: Any) -> tuple[list, dict]:
    """Lines with class probabilities, and metrics over the rows that have a label."""
    from gpt2_scratch.tokenizer import decode
    from training.batches import encode_labelled
    from training.inference import classify
    from training.metrics import classification_metrics
    from training.summary import name_of

    labels, flags = results["data"]["labels"], results["args"]
    settings = flags["max_length"], flags["pad_to"], flags["pad_id"], flags["truncate"] == "tail"
    encoded = [encode_labelled(e, labels.index(e.label) if e.label else 0, *settings) for e in examples]
    rows = classify(model, encoded, accelerator, len(labels))
    lines = [
        {"row": e.id, "text": decode(x.tokens.tolist()), "prediction": name_of(r.prediction, labels)}
        | {"probabilities": dict(zip(labels, r.probabilities, strict=True))}
        | ({"label": e.label} if e.label else {})
        for e, x, r in zip(examples, encoded, rows, strict=True)
    ]
    known = [r for e, r in zip(examples, rows, strict=True) if e.label]
    return lines, classification_metrics(known, len(labels)) if known and accelerator.is_main_process else {}


def respond(
    args: Args, results: dict[str, Any], examples: list[Any], model: Any, accelerator: Any
) -> tuple[list, dict]:
    """Lines with responses, and perplexities over the rows that have a reference with room for it."""
    from gpt2_scratch.generate import Sampling
    from gpt2_scratch.tokenizer import decode
    from training.batches import encode_instruction, encode_prompt
    from training.inference import answer, score_texts
    from training.metrics import perplexities

    flags, longest = results["args"], model.config.context - 1
    whole, prompts = ([encode_prompt(e, n, flags["response_header"]) for e in examples] for n in (None, longest))
    answers = answer(model, prompts, accelerator, args.new_tokens, Sampling(seed=flags["seed"]))
    lines = [
        {"row": e.id, "prompt": decode(prompt), "response": a.text, "stopped": a.stopped}
        | ({"cut": True} if len(prompt) < len(given) else {})
        for e, given, prompt, a in zip(examples, whole, prompts, answers, strict=True)
    ]
    encoded = [x for e in examples if e.response and (x := encode_instruction(e, flags["max_length"])).room]
    if not encoded:
        return lines, {}
    rows = score_texts(model, encoded, accelerator)
    return lines, perplexities(*rows) if accelerator.is_main_process else {}


if __name__ == "__main__":
    run(main, Args, __doc__)
