#!/usr/bin/env bash
# Beyond the report (its section 4): hyper-parameters of full fine-tuning, with as many runs for LoRA; reviews.
#
#     bash reproduce/beyond_full_tuning.sh
#
# One setting moves at a time, away from the recipe: learning rate, epochs, weight decay, batch size.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

#    label        column        report and record  --  script        what the cell alone has
version corrected

common "${corrected_sentiment[@]}" "${full[@]}" --model gpt2-medium
cell "full, 2.5e-5"  lr            - -  --  finetune_cls  --lr 2.5e-5
cell "full, 5e-5"    lr            - -  --  finetune_cls  --lr 5e-5
cell "full, 1e-4"    lr            - -  --  finetune_cls  --lr 1e-4
cell "full, 2e-4"    lr            - -  --  finetune_cls  --lr 2e-4
cell "full, 1"       epochs        - -  --  finetune_cls  --epochs 1
cell "full, 2"       epochs        - -  --  finetune_cls  --epochs 2
cell "full, 4"       epochs        - -  --  finetune_cls  --epochs 4
cell "full, 0"       weight-decay  - -  --  finetune_cls  --weight-decay 0
cell "full, 0.01"    weight-decay  - -  --  finetune_cls  --weight-decay 0.01
cell "full, 0.1"     weight-decay  - -  --  finetune_cls  --weight-decay 0.1
cell "full, 4"       batch         - -  --  finetune_cls  --batch-size 4
cell "full, 8"       batch         - -  --  finetune_cls  --batch-size 8
cell "full, 32"      batch         - -  --  finetune_cls  --batch-size 32

common "${corrected_sentiment[@]}" "${lora[@]}" --model gpt2-medium --lora-rank 16
cell "LoRA, 1e-4"    lr            - -  --  finetune_cls  --lr 1e-4
cell "LoRA, 2e-4"    lr            - -  --  finetune_cls  --lr 2e-4
cell "LoRA, 4e-4"    lr            - -  --  finetune_cls  --lr 4e-4
cell "LoRA, 8e-4"    lr            - -  --  finetune_cls  --lr 8e-4
cell "LoRA, 1"       epochs        - -  --  finetune_cls  --epochs 1
cell "LoRA, 2"       epochs        - -  --  finetune_cls  --epochs 2
cell "LoRA, 4"       epochs        - -  --  finetune_cls  --epochs 4
cell "LoRA, 0"       weight-decay  - -  --  finetune_cls  --weight-decay 0
cell "LoRA, 0.01"    weight-decay  - -  --  finetune_cls  --weight-decay 0.01
cell "LoRA, 0.1"     weight-decay  - -  --  finetune_cls  --weight-decay 0.1
cell "LoRA, 4"       batch         - -  --  finetune_cls  --batch-size 4
cell "LoRA, 8"       batch         - -  --  finetune_cls  --batch-size 8
cell "LoRA, 32"      batch         - -  --  finetune_cls  --batch-size 32

finish
