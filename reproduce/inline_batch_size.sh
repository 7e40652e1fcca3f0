#!/usr/bin/env bash
# In the text: batch sizes of LoRA on GPT-2 medium (report, section 3.2.1).
#
#     bash reproduce/inline_batch_size.sh
#
# The report says that larger batches were more accurate for spam, but only a run with a batch of 8 is recorded.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
draws 5

run=("${published_ift[@]}" "${scheduled[@]}" "${paper_lora_ift[@]}" --model gpt2-medium --lora-rank 16 --lora-alpha 16 --epochs 1)
published ift   "batch 2"   28.7  28.65  "${run[@]}" --batch-size 2
published ift   "batch 4"   32.4  32.46  "${run[@]}" --batch-size 4

run=("${published_spam[@]}" "${constant[@]}" "${paper_lora_spam[@]}" --model gpt2-medium --lora-rank 16 --lora-alpha 16 --epochs 2)
published spam  "batch 4"   -     -      "${run[@]}" --batch-size 4
published spam  "batch 8"   -     93.5   "${run[@]}" --batch-size 8
published spam  "batch 32"  -     -      "${run[@]}" --batch-size 32

corrected ift   "batch 2"   "${ift_lora_medium[@]}" --lora-rank 16 --batch-size 2
corrected ift   "batch 4"   "${ift_lora_medium[@]}" --lora-rank 16 --batch-size 4
corrected ift   "batch 8"   "${ift_lora_medium[@]}" --lora-rank 16 --batch-size 8
corrected ift   "batch 32"  "${ift_lora_medium[@]}" --lora-rank 16 --batch-size 32

corrected spam  "batch 4"   "${spam_lora_medium[@]}" --lora-rank 16 --batch-size 4
corrected spam  "batch 8"   "${spam_lora_medium[@]}" --lora-rank 16 --batch-size 8
corrected spam  "batch 32"  "${spam_lora_medium[@]}" --lora-rank 16 --batch-size 32
