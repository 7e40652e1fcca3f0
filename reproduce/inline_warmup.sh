#!/usr/bin/env bash
# In the text: warmup of 1% to 20% with LoRA, instructions (report, section 3.2.4).
#
#     bash reproduce/inline_warmup.sh
#
# The report gives no numbers ("little impact"); these are in the authors' records.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
draws 5

run=("${published_ift[@]}" "${scheduled[@]}" "${paper_lora_ift[@]}" --lora-rank 16 --lora-alpha 16)
published ift  "warmup 20% (report: medium)"  -  32.46        "${run[@]}" --model gpt2-medium --batch-size 4 --epochs 1 --warmup-ratio 0.2
published ift  "warmup 10% (report: medium)"  -  29.70        "${run[@]}" --model gpt2-medium --batch-size 4 --epochs 1 --warmup-ratio 0.1
published ift  "warmup 5% (report: medium)"   -  27.16        "${run[@]}" --model gpt2-medium --batch-size 4 --epochs 1 --warmup-ratio 0.05
published ift  "warmup 1% (report: medium)"   -  31.26        "${run[@]}" --model gpt2-medium --batch-size 4 --epochs 1 --warmup-ratio 0.01
published ift  "warmup 20% (report: large)"   -  43.72/47.69  "${run[@]}" --model gpt2-large --batch-size 2 --epochs 2 --warmup-ratio 0.2
published ift  "warmup 1% (report: large)"    -  43.34        "${run[@]}" --model gpt2-large --batch-size 2 --epochs 2 --warmup-ratio 0.01

corrected ift  "warmup 20% (report: medium)"  "${ift_lora_medium[@]}" --lora-rank 16 --warmup-ratio 0.2
corrected ift  "warmup 10% (report: medium)"  "${ift_lora_medium[@]}" --lora-rank 16 --warmup-ratio 0.1
corrected ift  "warmup 5% (report: medium)"   "${ift_lora_medium[@]}" --lora-rank 16 --warmup-ratio 0.05
corrected ift  "warmup 1% (report: medium)"   "${ift_lora_medium[@]}" --lora-rank 16 --warmup-ratio 0.01
corrected ift  "warmup 20% (report: large)"   "${ift_lora_large[@]}" --lora-rank 16 --warmup-ratio 0.2
corrected ift  "warmup 1% (report: large)"    "${ift_lora_large[@]}" --lora-rank 16 --warmup-ratio 0.01
