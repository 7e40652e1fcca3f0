#!/usr/bin/env bash
# Table 4: the rank of LoRA on GPT-2 medium, four tasks (report, section 3.2.2).
#
#     bash reproduce/table4_rank.sh
#
# As published, rank did not change alone: alpha followed it except on reviews, and the update was scaled by alpha
# itself, 16 times as much at rank 32 as at rank 2. On entailment, rank 8 had one epoch; ranks 4 and 32 have no record
# and get two, like the others. Notes on the instruction runs mention a weight decay of 0.2 for all ranks but 16; here
# all have the 0.1 of the code.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
draws 5
together

ift=("${published_ift[@]}" "${scheduled[@]}" "${paper_lora_ift[@]}" --model gpt2-medium --batch-size 4 --epochs 2)
published ift          "rank 2"      19.92     19.92     "${ift[@]}" --lora-rank 2 --lora-alpha 2
published ift          "rank 4"      27.1      27.1      "${ift[@]}" --lora-rank 4 --lora-alpha 4
published ift          "rank 8"      29.56     27.56     "${ift[@]}" --lora-rank 8 --lora-alpha 8
published ift          "rank 16"     36.35     36.35     "${ift[@]}" --lora-rank 16 --lora-alpha 16
published ift          "rank 32"     33.57     33.57     "${ift[@]}" --lora-rank 32 --lora-alpha 32

run=("${published_sentiment[@]}" "${scheduled[@]}" "${paper_lora_sentiment[@]}" --model gpt2-medium --batch-size 32 --epochs 2)
published sentiment    "rank 2"      92.4      92.433    "${run[@]}" --lora-rank 2 --lora-alpha 16
published sentiment    "rank 4"      92.4      92.4      "${run[@]}" --lora-rank 4 --lora-alpha 16
published sentiment    "rank 8"      92.4      92.7      "${run[@]}" --lora-rank 8 --lora-alpha 16
published sentiment    "rank 16"     92.6      92.6      "${run[@]}" --lora-rank 16 --lora-alpha 16
published sentiment    "rank 32"     93.0      93.0      "${run[@]}" --lora-rank 32 --lora-alpha 16

run=("${published_spam[@]}" "${constant[@]}" "${paper_lora_spam[@]}" --model gpt2-medium --batch-size 8 --epochs 2)
published spam         "rank 2"      62.8      62.75     "${run[@]}" --lora-rank 2 --lora-alpha 2
published spam         "rank 4"      62.8      62.75     "${run[@]}" --lora-rank 4 --lora-alpha 4
published spam         "rank 8"      89.8      89.75     "${run[@]}" --lora-rank 8 --lora-alpha 8
published spam         "rank 16"     95.5      95.5      "${run[@]}" --lora-rank 16 --lora-alpha 16
published spam         "rank 32"     90.0      90.0      "${run[@]}" --lora-rank 32 --lora-alpha 32

run=("${published_nle[@]}" "${scheduled[@]}" "${paper_lora_nle[@]}" --model gpt2-medium --batch-size 4)
published nle          "rank 2"      33.3      33.33     "${run[@]}" --lora-rank 2 --lora-alpha 2 --epochs 2
published nle          "rank 4"      51.3      -         "${run[@]}" --lora-rank 4 --lora-alpha 4 --epochs 2
published nle          "rank 8"      57.1      57.06     "${run[@]}" --lora-rank 8 --lora-alpha 8 --epochs 1
published nle          "rank 16"     59.8      59.86     "${run[@]}" --lora-rank 16 --lora-alpha 16 --epochs 2
published nle          "rank 32"     52.4      -         "${run[@]}" --lora-rank 32 --lora-alpha 32 --epochs 2

# The report's last column is for the instruction runs, whose adapters include the LM head.
published parameters   "rank 2"      987298    987298    "${ift[@]}" --lora-rank 2 --lora-alpha 2
published parameters   "rank 4"      1974596   1974596   "${ift[@]}" --lora-rank 4 --lora-alpha 4
published parameters   "rank 8"      3949192   3949192   "${ift[@]}" --lora-rank 8 --lora-alpha 8
published parameters   "rank 16"     7898384   7898384   "${ift[@]}" --lora-rank 16 --lora-alpha 16
published parameters   "rank 32"     15796768  15796768  "${ift[@]}" --lora-rank 32 --lora-alpha 32

for rank in 2 4 8 16 32; do
  corrected ift        "rank $rank"  "${ift_lora_medium[@]}" --lora-rank $rank
  corrected sentiment  "rank $rank"  "${sentiment_lora_medium[@]}" --lora-rank $rank
  corrected spam       "rank $rank"  "${spam_lora_medium[@]}" --lora-rank $rank
  corrected nle        "rank $rank"  "${nle_lora_medium[@]}" --lora-rank $rank
done
