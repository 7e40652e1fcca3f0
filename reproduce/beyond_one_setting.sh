#!/usr/bin/env bash
# Beyond the report: one setting of its authors at a time exchanged for ours, LoRA of rank 16, three tasks.
#
#     bash reproduce/beyond_one_setting.sh
#
# The first row of each column has the authors' settings, slips included (Table 3, GPT-2 medium); each other row differs
# from it in the setting it names. Unlike the rows as published, each seed draws its own training examples.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
draws 5
together

one() { corrected "$1" "$2" "${run[@]}" "${@:3}"; }
our_schedule=(--schedule cosine --lr-init 0 --lr-min 0 --warmup-ratio 0.05 --max-grad-norm 1.0 --no-clip-after-warmup)

run=("${published_spam[@]}" "${constant[@]}" "${paper_lora_spam[@]}" --model gpt2-medium --lora-rank 16 --lora-alpha 16 --batch-size 8 --epochs 2)
one spam       "as published"
one spam       "scale alpha / r"        --lora-scaling standard
one spam       "trained head"           --head-training train --no-head-bias
one spam       "schedule and clipping"  "${our_schedule[@]}" --warmup-steps None
one spam       "nothing padded"         --pad-to None
one spam       "our learning rate"      --lr 4e-4

run=("${published_sentiment[@]}" "${scheduled[@]}" "${paper_lora_sentiment[@]}" --model gpt2-medium --lora-rank 16 --lora-alpha 16 --batch-size 32 --epochs 2)
one sentiment  "as published"
one sentiment  "scale alpha / r"        --lora-scaling standard
one sentiment  "head without adapter"   --head-training train --no-head-bias
one sentiment  "our schedule"           "${our_schedule[@]}"
one sentiment  "batch 8"                --batch-size 8
one sentiment  "nothing padded"         --pad-to None
one sentiment  "our learning rate"      --lr 2e-4

run=("${published_ift[@]}" "${scheduled[@]}" "${paper_lora_ift[@]}" --model gpt2-medium --lora-rank 16 --lora-alpha 16 --batch-size 4 --epochs 2)
one ift        "as published"
one ift        "scale alpha / r"        --lora-scaling standard
run=("${published_ift[@]}" "${scheduled[@]}" "${paper_lora[@]}" --model gpt2-medium --lora-rank 16 --lora-alpha 16 --batch-size 4 --epochs 2)
one ift        "head without adapter"
