#!/usr/bin/env bash
# Table 8: full fine-tuning and LoRA, GPT-2 small on reviews (report, appendix 5.6.2).
#
#     bash reproduce/table8_small.sh
#
# As published, LoRA had two epochs, a schedule and clipping; full fine-tuning had one epoch at a constant rate.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
draws 5

run=("${published_sentiment[@]}" --model gpt2 --batch-size 32)
published sentiment   "full"  0.905  0.905    "${run[@]}" "${constant[@]}" "${full[@]}" --epochs 1
published sentiment   "LoRA"  0.904  0.90467  "${run[@]}" "${scheduled[@]}" "${paper_lora_sentiment[@]}" --lora-rank 16 --lora-alpha 16 --epochs 2 --warmup-steps 1
published parameters  "LoRA"  2e6    2668066  "${run[@]}" "${scheduled[@]}" "${paper_lora_sentiment[@]}" --lora-rank 16 --lora-alpha 16 --epochs 2 --warmup-steps 1

corrected sentiment   "full"  "${sentiment_full_small[@]}"
corrected sentiment   "LoRA"  "${sentiment_lora_small[@]}" --lora-rank 16
