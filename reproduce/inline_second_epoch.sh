#!/usr/bin/env bash
# In the text: what a second epoch brings with LoRA, GPT-2 medium on reviews (report, section 3.2: "4% accuracy").
#
#     bash reproduce/inline_second_epoch.sh
#
# As published, the batch size doubled with the epochs.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
draws 5

run=("${published_sentiment[@]}" "${scheduled[@]}" "${paper_lora_sentiment[@]}" --model gpt2-medium --lora-rank 16 --lora-alpha 16 --last-blocks 18)
published sentiment  "one epoch"   -  88.2    "${run[@]}" --batch-size 16 --epochs 1
published sentiment  "two epochs"  -  91.633  "${run[@]}" --batch-size 32 --epochs 2

corrected sentiment  "one epoch"   "${sentiment_lora_medium[@]}" --lora-rank 16 --last-blocks 18 --epochs 1
corrected sentiment  "two epochs"  "${sentiment_lora_medium[@]}" --lora-rank 16 --last-blocks 18 --epochs 2
