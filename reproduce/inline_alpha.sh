#!/usr/bin/env bash
# In the text: alpha of half the rank, the rank and twice the rank, GPT-2 medium, instructions (report, section 3.2.2).
#
#     bash reproduce/inline_alpha.sh
#
# The report gives no numbers, and there is no record of alpha = r/2. As published, alpha itself is the scale.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
draws 5

run=("${published_ift[@]}" "${scheduled[@]}" "${paper_lora_ift[@]}" --model gpt2-medium --lora-rank 16 --batch-size 2 --epochs 1)
published ift  "alpha = r"    -  28.65  "${run[@]}" --lora-alpha 16
published ift  "alpha = r/2"  -  -      "${run[@]}" --lora-alpha 8
published ift  "alpha = 2r"   -  21.22  "${run[@]}" --lora-alpha 32

corrected ift  "alpha = r"    "${ift_lora_medium[@]}" --lora-rank 16 --lora-alpha 16
corrected ift  "alpha = r/2"  "${ift_lora_medium[@]}" --lora-rank 16 --lora-alpha 8
corrected ift  "alpha = 2r"   "${ift_lora_medium[@]}" --lora-rank 16 --lora-alpha 32
