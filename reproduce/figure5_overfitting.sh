#!/usr/bin/env bash
# Figure 5: signs of overfitting, GPT-2 large on reviews (report, appendix 5.6.1).
#
#     bash reproduce/figure5_overfitting.sh
#
# The caption says full fine-tuning; the picture shows the LoRA run (two epochs). Both are run here, with a validation
# part for the curve. The corrected runs have four epochs, to give overfitting time to show.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
draws 5

run=("${published_sentiment[@]}" --validation-share 0.1 --test-share 0.1 --eval-batches 5 --save-every 500 --keep last --model gpt2-large)
published val-loss  "full (the caption)"  -  0.122  "${run[@]}" "${constant[@]}" "${full[@]}" --batch-size 16 --epochs 1 --eval-every 5
published val-loss  "LoRA (the picture)"  -  0.165  "${run[@]}" "${scheduled[@]}" "${paper_lora_sentiment[@]}" --lora-rank 16 --lora-alpha 16 --last-blocks 24 --batch-size 32 --epochs 2 --warmup-steps 1 --eval-every 25

corrected val-loss  "full (the caption)"  "${sentiment_full_large[@]}" --epochs 4
corrected val-loss  "LoRA (the picture)"  "${sentiment_lora_large[@]}" --epochs 4 --lora-rank 16
