#!/usr/bin/env bash
# Table 6: the rank of LoRA on GPT-2 large, instructions (report, appendix 5.4.3).
#
#     bash reproduce/table6_rank_large.sh
#
# As published, alpha followed the rank and the update was scaled by alpha itself. The report says two epochs on a T4;
# the authors' records say one epoch on an L4.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
draws 5

run=("${published_ift[@]}" "${scheduled[@]}" "${paper_lora_ift[@]}" --model gpt2-large --batch-size 2 --epochs 1 --warmup-ratio 0.01)
published ift         "rank 8"   46.37  46.37     "${run[@]}" --lora-rank 8 --lora-alpha 8
published ift         "rank 16"  49.98  49.98     "${run[@]}" --lora-rank 16 --lora-alpha 16
published ift         "rank 32"  44.96  44.96     "${run[@]}" --lora-rank 32 --lora-alpha 32
published parameters  "rank 8"   -      7047816   "${run[@]}" --lora-rank 8 --lora-alpha 8
published parameters  "rank 16"  14e6   14095632  "${run[@]}" --lora-rank 16 --lora-alpha 16
published parameters  "rank 32"  -      28191264  "${run[@]}" --lora-rank 32 --lora-alpha 32

corrected ift         "rank 8"   "${ift_lora_large[@]}" --lora-rank 8
corrected ift         "rank 16"  "${ift_lora_large[@]}" --lora-rank 16
corrected ift         "rank 32"  "${ift_lora_large[@]}" --lora-rank 32
