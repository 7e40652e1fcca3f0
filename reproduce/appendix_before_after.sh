#!/usr/bin/env bash
# Appendix 5.3: an answer before and after fine-tuning on instructions.
#
#     bash reproduce/appendix_before_after.sh
#
# Every run keeps `before` and `response` to each test prompt in generations.jsonl. What the report itself asks is
# answered by the base and by the fine-tuned model in FOLDER.answers.txt.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

question "Rewrite the following sentence so that it is in active voice. The cake was baked by Sarah."
question "Identify the correct spelling of the following word: Occassion"
question "What is the capital of California?"

run=("${published_ift[@]}" "${scheduled[@]}")
published answers  "full, large"  -  -  "${run[@]}" --model gpt2-large "${full[@]}" --batch-size 2 --epochs 1
published answers  "LoRA, large"  -  -  "${run[@]}" --model gpt2-large "${paper_lora_ift[@]}" --lora-rank 16 --lora-alpha 16 --batch-size 2 --epochs 1 --warmup-ratio 0.01

corrected answers  "full, large"  "${ift_full_large[@]}"
corrected answers  "LoRA, large"  "${ift_lora_large[@]}" --lora-rank 16
