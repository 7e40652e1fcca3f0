#!/usr/bin/env bash
# Appendix 5.3: an answer before and after fine-tuning on instructions.
#
#     bash reproduce/appendix_before_after.sh
#
# Every run keeps `before` and `response` to each test prompt in generations.jsonl. What the report itself asks is
# answered by the base and by the fine-tuned model in FOLDER.answers.txt.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

questions=(
  "Rewrite the following sentence so that it is in active voice. The cake was baked by Sarah."
  "Identify the correct spelling of the following word: Occassion"
  "What is the capital of California?"
)

#    label        column   report  record  --  script        what the cell alone has
version published

common "${published_ift[@]}" "${scheduled[@]}"
cell "full, large"  answers  -       -       --  finetune_ift  --model gpt2-large "${full[@]}" --batch-size 2 --epochs 1
cell "LoRA, large"  answers  -       -       --  finetune_ift  --model gpt2-large "${paper_lora_ift[@]}" --lora-rank 16 --lora-alpha 16 --batch-size 2 --epochs 1 --warmup-ratio 0.01

version corrected

common "${corrected_ift[@]}" --model gpt2-large
cell "full, large"  answers  -       -       --  finetune_ift  "${full[@]}"
cell "LoRA, large"  answers  -       -       --  finetune_ift  "${lora[@]}" --lora-rank 16

finish
