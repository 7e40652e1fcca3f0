#!/usr/bin/env bash
# In the text: optimizers of LoRA on GPT-2 medium, instructions (report, section 3.2.3).
#
#     bash reproduce/inline_optimizer.sh
#
# As published, SGD ran at Adam's learning rate of 5e-5, which hardly moves it. Corrected, each has a rate of its own;
# that a rate falls with 1 / width is an argument about Adam, yet the nano scale maps SGD's in the same way.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

#    label             column  report  record  --  script        what the cell alone has
version published

common "${published_ift[@]}" "${scheduled[@]}" "${paper_lora_ift[@]}" --model gpt2-medium --lora-rank 16 --lora-alpha 16 --batch-size 4 --epochs 2
cell "AdamW"             ift     36.35   36.35   --  finetune_ift  --optimizer adamw
cell "SGD"               ift     14.96   14.96   --  finetune_ift  --optimizer sgd
cell "SGD, momentum 0.9" ift     21.69   21.69   --  finetune_ift  --optimizer sgd-momentum --momentum 0.9

version corrected

common "${corrected_ift[@]}" "${lora[@]}" --model gpt2-medium --lora-rank 16
cell "AdamW"             ift     =       =       --  finetune_ift  --optimizer adamw
cell "SGD"               ift     =       =       --  finetune_ift  --optimizer sgd
cell "SGD, momentum 0.9" ift     =       =       --  finetune_ift  --optimizer sgd-momentum --momentum 0.9

finish
