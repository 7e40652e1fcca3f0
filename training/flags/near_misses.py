"""Finds what an unknown flag or value was meant to be: a name from another tool, or a slip of the keyboard."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches

# Our flag, or what to do, and its names in TRL, transformers' examples, LLaMA-Factory, axolotl, litgpt and others. A
# flag of ours leads on to the one that another of our scripts has in its place.
ELSEWHERE = """
--lr <- learning-rate learn-rate eta peak-lr max-lr
--lr-min <- min-lr eta-min
--epochs <- num-train-epochs num-epochs n-epochs epoch train-epochs max-epochs number-of-epochs
--max-steps <- max-train-steps num-steps train-steps steps max-iters iterations num-iterations iters updates
--batch-size <- train-batch-size global-batch-size batch bs bsz total-batch-size train-bs
--micro-batch-size (of one device) and --batch-size (of all together) <- per-device-train-batch-size
    per-gpu-train-batch-size device-batch-size per-device-batch-size device-train-microbatch-size
--batch-size (of an update) over --micro-batch-size (of one device) <- gradient-accumulation-steps accumulation-steps
    grad-accum grad-accum-steps grad-acc gradient-accumulation accumulate-grad-batches
--mixed-precision bf16 <- bf16 bfloat16 bf16-training
--mixed-precision fp16 <- fp16 half float16 amp use-amp
--mixed-precision no <- fp32 float32 full-precision
--mixed-precision <- precision dtype torch-dtype
--base-bits 4 <- load-in-4bit 4bit qlora use-4bit load-4bit use-qlora quantize-4bit bnb-4bit
--base-bits 8 <- load-in-8bit 8bit use-8bit load-8bit
--base-bits <- quantization-bit quantization quantize bits nbits
--method lora <- use-lora lora peft use-peft lora-enable
--method full <- full full-finetune full-finetuning full-ft
--method dora <- use-dora dora
--method <- finetuning-type tuning-type peft-type peft-method train-type tuner-type
--lora-scaling rslora <- use-rslora rslora
--lora-rank <- lora-r r rank lora-dim lora-attn-dim adapter-rank
--lora-alpha <- alpha lora-scale lora-scaling-alpha
--lora-targets <- lora-target-modules target-modules lora-target lora-modules
--lora-plus-ratio <- loraplus-lr-ratio lora-plus
--last-blocks <- last-layers num-layers lora-layers unfreeze-layers trainable-layers freeze-trainable-layers
--model <- model-name-or-path model-name model-path base-model base pretrained-model pretrained-model-name-or-path
    model-id model-name-or-id checkpoint-dir
--output-dir <- output out out-dir output-path output-folder save-dir save-path run-name run-dir results-dir exp-name
--config <- cfg config-path config-yaml yaml args-file
the file of accelerate goes before the script, accelerate launch --config_file FILE scripts/...; --config is for flags
    <- config-file
--overwrite <- overwrite-output-dir force overwrite-output
--resume <- resume-from-checkpoint resume-from continue auto-resume
--max-length <- max-seq-length max-seq-len max-len maxlen block-size cutoff-len seq-length sequence-len seq-len
    max-source-length model-max-length max-tokens max-sequence-length context-length
--max-length (of prompt and response together) <- max-prompt-length max-target-length max-completion-length
--warmup-steps or --warmup-ratio <- warmup lr-warmup-steps warmup-epochs num-warmup-steps
--weight-decay <- wd decay l2
--schedule <- lr-scheduler-type lr-scheduler scheduler lr-schedule scheduler-type
--optimizer <- optim opt optimizer-type optimiser
--max-grad-norm <- grad-clip gradient-clip gradient-clipping clip clip-grad-norm max-norm clip-grad gradient-clip-val
--data <- train-file training-file data-path data-dir dataset-path file input-file train-data data-file data-files
    train-path train-data-path csv input dataset-dir
--dataset <- dataset-name data-name task-name task dataset-id
--data FOLDER, with files named train, validation and test <- validation-file val-file test-file eval-file eval-data
    val-data test-data dev-file valid-file eval-dataset
--text-column <- text-column-name text-columns text-col text-field dataset-text-field input-col text-key
--label-column <- label-column-name label-col label-field target-column target label-key target-col
--prompt-column <- instruction-column question-column prompt-col prompt-key text-column
--response-column <- output-column answer-column completion-column response-key response-col label-column
--train-examples <- max-train-samples max-samples train-size num-train-samples num-samples limit max-train-examples
    train-samples
--val-examples <- max-eval-samples max-val-samples max-validation-samples eval-samples
--test-examples <- max-test-samples max-predict-samples test-samples
--validation-share <- val-split validation-split valid-size val-size validation-size val-set-size val-ratio
    validation-split-percentage eval-split
--test-share <- test-size test-split test-ratio
--eval-every <- eval-steps evaluation-steps eval-interval eval-freq eval-frequency val-check-interval
--save-every <- save-steps save-interval checkpointing-steps checkpoint-every save-freq
--log-every <- logging-steps log-interval log-steps logging-interval print-freq
--keep best <- load-best-model-at-end save-best
--early-stop <- early-stopping-patience patience early-stopping
--checkpoint-activations <- gradient-checkpointing activation-checkpointing grad-checkpointing
    use-gradient-checkpointing
--cache-frozen <- cache-prefix
--new-tokens <- max-length max-new-tokens max-generate-tokens gen-length max-gen-length generation-max-length
--labels <- num-labels num-classes n-classes class-names classes label-names label-list
--seed <- random-seed random-state manual-seed data-seed
--beta <- dpo-beta pref-beta
--dpo-loss <- loss-type pref-loss
--start-from (the run that is the reference too) or --reference (how it is computed) <- ref-model
    ref-model-name-or-path reference-model ref-model-path ref-adapter-name sft-model
--temperature (0 is greedy) <- do-sample sample
--prompt <- text prompt-text query
--run <- run-folder model-dir model-folder
--adapter <- adapter-path adapter-name-or-path adapter-folder adapter-dir lora-path lora-dir resume-adapter
--start-from <- adapter
--model FOLDER, into which scripts/merge_lora.py has merged the adapter <- start-from
--init-from <- model
--tokens or --minutes (the budget) <- epochs max-steps
--batch-tokens <- batch-size
--micro-batch-tokens <- micro-batch-size
--output <- output-dir
--new-tokens (nothing else ends an answer before its end of text) <- stop stop-sequence stop-sequences stop-words
scripts/predict.py measures a finished run on other rows; leave it out <- eval-only test-only evaluate-only predict-only
examples are never padded, and evaluation sizes its batches itself; leave it out <- per-device-eval-batch-size
    eval-batch-size per-gpu-eval-batch-size val-batch-size packing group-by-length pad-to-max-length
training, evaluation and the test always happen; leave it out <- do-train do-eval do-predict do-test
    evaluation-strategy eval-strategy save-strategy logging-strategy predict-with-generate
--report-to wandb <- wandb use-wandb wandb-project
--report-to <- logging-dir log-with with-tracking tensorboard tracker trackers logger use-tensorboard
it is used where the hardware has it; leave it out <- flash-attention use-flash-attn flash-attn attn-implementation
    flash-attention-2 use-flash-attention-2
accelerate launch has --cpu and --num_processes for this <- device no-cuda use-cpu cpu gpu gpus num-gpus n-gpu devices
    num-processes nproc-per-node
accelerate launch and torchrun tell the process by its environment; start with one of them, and leave it out <-
    local-rank node-rank
these scripts know data parallelism alone; leave it out <- deepspeed deepspeed-config fsdp fsdp-config ddp-backend
    tensor-parallel-size
training examples are drawn in a new order in every epoch; leave it out <- shuffle shuffle-data no-shuffle
    shuffle-train
one checkpoint is kept at a time; leave it out <- save-total-limit keep-last-n max-checkpoints
classes are not weighted; leave it out, or change the share of each in the data <- class-weights class-weight
    weighted-loss pos-weight balanced balance-classes
no code of a model's own is ever run; leave it out <- trust-remote-code
--push-to-hub <- hub-model-id repo-id hub-repo push-to-hub-model-id hub-repo-id
it is uploaded once, at the end; leave it out <- hub-strategy
the repository that is made is public; create it as a private one first, and leave this out <- hub-private-repo
the data are in memory; leave it out <- num-workers dataloader-num-workers preprocessing-num-workers dataset-num-proc
    num-proc
there is no beam search; leave it out <- num-beams beams beam-size beam-width
every item of the generations is asked about; leave it out <- items num-items n-items max-items item-limit
an adapter is applied in full; leave it out (scripts/playground.py tries other strengths) <- adapter-strength strength
    adapter-scale adapter-weight
keys come from the environment: GEMINI_API_KEY, or OPENAI_API_KEY for --judge-url <- api-key openai-api-key
    gemini-api-key google-api-key judge-api-key openai-key
the hub's token comes from the environment: HF_TOKEN <- hf-token use-auth-token auth-token hub-token
CUDA_VISIBLE_DEVICES=0 before the command chooses the device <- gpu-id gpu-ids device-id
"""
ENTRIES = [entry.split(" <- ") for entry in ELSEWHERE.replace("\n    ", " ").splitlines() if entry]
OURS = {name: remedy for remedy, names in ENTRIES for name in names.split()}


def plain(word: str) -> str:
    """Returns the bare name of a flag: --output_dir=x becomes output-dir."""
    return word.lstrip("-").split("=", 1)[0].replace("_", "-").lower()


def nearest(word: str, known: Collection[str], alike: float = 0.6) -> str | None:
    """Returns the one of `known` that `word` was probably meant to be; `alike` 1 asks for equality."""
    by_spelling = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), by_spelling, n=1, cutoff=alike)
    return by_spelling[close[0]] if close else None


def meant(word: str, known: Iterable[str]) -> str | None:
    """Returns what to write instead of the unknown flag `word` in a script with the flags `known`, as --lora-rank."""
    name, flags = plain(word), list(known)
    there = {flag.lstrip("-") for flag in flags}
    asked, seen = name, set[str]()
    while asked in OURS and asked not in seen:
        seen.add(asked)
        ours = OURS[asked]
        asked = plain(ours.split()[0])
        if not ours.startswith("--") or asked in there:
            return ours
    if name in there:
        return f"--{name}"
    close = nearest(name, there, 0.65 if len(name) < 5 else 0.8)  # a wrong guess is worse than none
    return f"--{close}" if close else None
