#!/usr/bin/env bash
# Table 2: model size and number of tokens, full fine-tuning on reviews (report, section 3.1.2).
#
#     bash reproduce/table2_tokens.sh
#
# As published, the batch size moved with both. Every review was filled up to the number of tokens with "!".
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

#    label                column     report  record   --  script        what the cell alone has
version published

common "${published_sentiment[@]}" "${constant[@]}" "${full[@]}" --epochs 1
cell "small, 256 tokens"   sentiment  0.905   0.905   --  finetune_cls  --model gpt2        --max-length 256  --pad-to 256  --batch-size 32
cell "small, 1024 tokens"  sentiment  0.926   0.926   --  finetune_cls  --model gpt2        --max-length 1024 --pad-to 1024 --batch-size 4
cell "medium, 256 tokens"  sentiment  0.932   0.93233 --  finetune_cls  --model gpt2-medium --max-length 256  --pad-to 256  --batch-size 8
cell "medium, 1024 tokens" sentiment  0.942   0.94233 --  finetune_cls  --model gpt2-medium --max-length 1024 --pad-to 1024 --batch-size 4

version corrected

common "${corrected_sentiment[@]}" "${full[@]}"
cell "small, 256 tokens"   sentiment  =       =       --  finetune_cls  --model gpt2        --max-length 256
cell "small, 1024 tokens"  sentiment  =       =       --  finetune_cls  --model gpt2        --max-length 1024
cell "medium, 256 tokens"  sentiment  =       =       --  finetune_cls  --model gpt2-medium --max-length 256
cell "medium, 1024 tokens" sentiment  =       =       --  finetune_cls  --model gpt2-medium --max-length 1024

finish
