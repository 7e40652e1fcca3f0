#!/usr/bin/env bash
# Beyond the report (its section 4): hyper-parameters of full fine-tuning, with as many runs for LoRA; reviews.
#
#     bash reproduce/beyond_full_tuning.sh
#
# One setting at a time differs from the recipe: learning rate, epochs, weight decay or batch size.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

corrected lr            "full, 2.5e-5"  "${sentiment_full_medium[@]}" --lr 2.5e-5
corrected lr            "full, 5e-5"    "${sentiment_full_medium[@]}" --lr 5e-5
corrected lr            "full, 1e-4"    "${sentiment_full_medium[@]}" --lr 1e-4
corrected lr            "full, 2e-4"    "${sentiment_full_medium[@]}" --lr 2e-4
corrected epochs        "full, 1"       "${sentiment_full_medium[@]}" --epochs 1
corrected epochs        "full, 2"       "${sentiment_full_medium[@]}" --epochs 2
corrected epochs        "full, 4"       "${sentiment_full_medium[@]}" --epochs 4
corrected weight-decay  "full, 0"       "${sentiment_full_medium[@]}" --weight-decay 0
corrected weight-decay  "full, 0.01"    "${sentiment_full_medium[@]}" --weight-decay 0.01
corrected weight-decay  "full, 0.1"     "${sentiment_full_medium[@]}" --weight-decay 0.1
corrected batch         "full, 4"       "${sentiment_full_medium[@]}" --batch-size 4
corrected batch         "full, 8"       "${sentiment_full_medium[@]}" --batch-size 8
corrected batch         "full, 32"      "${sentiment_full_medium[@]}" --batch-size 32

corrected lr            "LoRA, 1e-4"    "${sentiment_lora_medium[@]}" --lora-rank 16 --lr 1e-4
corrected lr            "LoRA, 2e-4"    "${sentiment_lora_medium[@]}" --lora-rank 16 --lr 2e-4
corrected lr            "LoRA, 4e-4"    "${sentiment_lora_medium[@]}" --lora-rank 16 --lr 4e-4
corrected lr            "LoRA, 8e-4"    "${sentiment_lora_medium[@]}" --lora-rank 16 --lr 8e-4
corrected epochs        "LoRA, 1"       "${sentiment_lora_medium[@]}" --lora-rank 16 --epochs 1
corrected epochs        "LoRA, 2"       "${sentiment_lora_medium[@]}" --lora-rank 16 --epochs 2
corrected epochs        "LoRA, 4"       "${sentiment_lora_medium[@]}" --lora-rank 16 --epochs 4
corrected weight-decay  "LoRA, 0"       "${sentiment_lora_medium[@]}" --lora-rank 16 --weight-decay 0
corrected weight-decay  "LoRA, 0.01"    "${sentiment_lora_medium[@]}" --lora-rank 16 --weight-decay 0.01
corrected weight-decay  "LoRA, 0.1"     "${sentiment_lora_medium[@]}" --lora-rank 16 --weight-decay 0.1
corrected batch         "LoRA, 4"       "${sentiment_lora_medium[@]}" --lora-rank 16 --batch-size 4
corrected batch         "LoRA, 8"       "${sentiment_lora_medium[@]}" --lora-rank 16 --batch-size 8
corrected batch         "LoRA, 32"      "${sentiment_lora_medium[@]}" --lora-rank 16 --batch-size 32
