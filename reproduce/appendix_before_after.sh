#!/usr/bin/env bash
# Appendix 5.3: an answer before and after fine-tuning on instructions.
#
#     bash reproduce/appendix_before_after.sh
#
# Every run keeps its answers before and after fine-tuning to the test prompts in generations.jsonl. FOLDER.answers.txt
# has the answers of the base and the fine-tuned model to the report's own prompts.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

question "Rewrite the following sentence so that it is in active voice. The cake was baked by Sarah." \
  "before" "## Output: The cake was baked by Sarah. ## Instruction: Write a response that appropriately completes the request." \
  "after" "Sarah baked the cake."
question "Identify the correct spelling of the following word: Occassion" \
  "wanted (appendix 5.1)" "The correct spelling is 'Occasion'."
question "What is the capital of California?" \
  "LoRA (section 3.2)" "Sacramento" "full, medium" "San Francisco" "full, large" "Los Angeles"

run=("${published_ift[@]}" "${scheduled[@]}")
published answers  "full (report: large)"  -  -  "${run[@]}" --model gpt2-large "${full[@]}" --batch-size 2 --epochs 1
published answers  "LoRA (report: large)"  -  -  "${run[@]}" --model gpt2-large "${paper_lora_ift[@]}" --lora-rank 16 --lora-alpha 16 --batch-size 2 --epochs 1 --warmup-ratio 0.01

corrected answers  "full (report: large)"  "${ift_full_large[@]}"
corrected answers  "LoRA (report: large)"  "${ift_lora_large[@]}" --lora-rank 16
