#!/usr/bin/env bash
# In the text: warmup of 1% to 20% with LoRA, instructions (report, section 3.2.4).
#
#     bash reproduce/inline_warmup.sh
#
# The report gives no numbers ("little impact"); these are in the authors' records.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

#    label               column  report  record       --  script        what the cell alone has
version published

common "${published_ift[@]}" "${scheduled[@]}" "${paper_lora_ift[@]}" --lora-rank 16 --lora-alpha 16
cell "medium, warmup 20%"  ift     -       32.46        --  finetune_ift  --model gpt2-medium --batch-size 4 --epochs 1 --warmup-ratio 0.2
cell "medium, warmup 10%"  ift     -       29.70        --  finetune_ift  --model gpt2-medium --batch-size 4 --epochs 1 --warmup-ratio 0.1
cell "medium, warmup 5%"   ift     -       27.16        --  finetune_ift  --model gpt2-medium --batch-size 4 --epochs 1 --warmup-ratio 0.05
cell "medium, warmup 1%"   ift     -       31.26        --  finetune_ift  --model gpt2-medium --batch-size 4 --epochs 1 --warmup-ratio 0.01
cell "large, warmup 20%"   ift     -       43.72/47.69  --  finetune_ift  --model gpt2-large  --batch-size 2 --epochs 2 --warmup-ratio 0.2
cell "large, warmup 1%"    ift     -       43.34        --  finetune_ift  --model gpt2-large  --batch-size 2 --epochs 2 --warmup-ratio 0.01

version corrected

common "${corrected_ift[@]}" "${lora[@]}" --lora-rank 16
cell "medium, warmup 20%"  ift     =       =            --  finetune_ift  --model gpt2-medium --warmup-ratio 0.2
cell "medium, warmup 10%"  ift     =       =            --  finetune_ift  --model gpt2-medium --warmup-ratio 0.1
cell "medium, warmup 5%"   ift     =       =            --  finetune_ift  --model gpt2-medium --warmup-ratio 0.05
cell "medium, warmup 1%"   ift     =       =            --  finetune_ift  --model gpt2-medium --warmup-ratio 0.01
cell "large, warmup 20%"   ift     =       =            --  finetune_ift  --model gpt2-large  --warmup-ratio 0.2
cell "large, warmup 1%"    ift     =       =            --  finetune_ift  --model gpt2-large  --warmup-ratio 0.01

finish
