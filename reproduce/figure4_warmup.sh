#!/usr/bin/env bash
# Figure 4: warmup of 1% and 20%, LoRA on GPT-2 large, instructions (report, section 3.2.4).
#
#     bash reproduce/figure4_warmup.sh
#
# As published, the run with 20% has two epochs and the run with 1% has one, yet both are drawn on the same axis.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
draws 5

run=("${published_ift[@]}" "${scheduled[@]}" "${paper_lora_ift[@]}" --model gpt2-large --lora-rank 16 --lora-alpha 16 --batch-size 2)
published val-loss  "warmup 20%"  -  1.427  "${run[@]}" --warmup-ratio 0.2 --epochs 2
published val-loss  "warmup 1%"   -  1.394  "${run[@]}" --warmup-ratio 0.01 --epochs 1

corrected val-loss  "warmup 20%"  "${ift_lora_large[@]}" --lora-rank 16 --warmup-ratio 0.2
corrected val-loss  "warmup 1%"   "${ift_lora_large[@]}" --lora-rank 16 --warmup-ratio 0.01
