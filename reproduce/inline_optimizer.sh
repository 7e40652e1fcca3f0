#!/usr/bin/env bash
# In the text: optimizers of LoRA on GPT-2 medium, instructions (report, section 3.2.3).
#
#     bash reproduce/inline_optimizer.sh
#
# As published, SGD ran at Adam's learning rate of 5e-5, with which it hardly moves. Corrected, each optimizer has its
# own rate. The nano scale maps SGD's rate with 1 / width too, although the argument for that is about Adam.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
draws 5

run=("${published_ift[@]}" "${scheduled[@]}" "${paper_lora_ift[@]}" --model gpt2-medium --lora-rank 16 --lora-alpha 16 --batch-size 4 --epochs 2)
published ift  "AdamW"                  36.35  36.35  "${run[@]}" --optimizer adamw
published ift  "SGD"                    14.96  14.96  "${run[@]}" --optimizer sgd
published ift  "SGD with momentum 0.9"  21.69  21.69  "${run[@]}" --optimizer sgd-momentum --momentum 0.9

# "No RAM increase": GPU memory of the instruction runs with a batch of 4, in GB, from the authors' records.
published memory  "AdamW"                  -  14.2  "${run[@]}" --optimizer adamw
published memory  "SGD"                    -  14.2  "${run[@]}" --optimizer sgd
published memory  "SGD with momentum 0.9"  -  14.2  "${run[@]}" --optimizer sgd-momentum --momentum 0.9

corrected ift  "AdamW"                  "${ift_lora_medium[@]}" --lora-rank 16
corrected ift  "SGD"                    "${ift_sgd_medium[@]}" --lora-rank 16
corrected ift  "SGD with momentum 0.9"  "${ift_momentum_medium[@]}" --lora-rank 16

corrected memory   "AdamW"                  "${ift_lora_medium[@]}" --lora-rank 16
corrected memory   "SGD"                    "${ift_sgd_medium[@]}" --lora-rank 16
corrected memory   "SGD with momentum 0.9"  "${ift_momentum_medium[@]}" --lora-rank 16
