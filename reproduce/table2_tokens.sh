#!/usr/bin/env bash
# Table 2: model size and number of tokens, full fine-tuning on reviews (report, section 3.1.2).
#
#     bash reproduce/table2_tokens.sh
#
# As published, the batch size changed with both. Every review was padded to the number of tokens with "!".
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
draws 5

run=("${published_sentiment[@]}" "${constant[@]}" "${full[@]}" --epochs 1)
published sentiment  "256 tokens (report: small)"    0.905  0.905    "${run[@]}" --model gpt2 --max-length 256 --pad-to 256 --batch-size 32
published sentiment  "1024 tokens (report: small)"   0.926  0.926    "${run[@]}" --model gpt2 --max-length 1024 --pad-to 1024 --batch-size 4
published sentiment  "256 tokens (report: medium)"   0.932  0.93233  "${run[@]}" --model gpt2-medium --max-length 256 --pad-to 256 --batch-size 8
published sentiment  "1024 tokens (report: medium)"  0.942  0.94233  "${run[@]}" --model gpt2-medium --max-length 1024 --pad-to 1024 --batch-size 4

corrected sentiment  "256 tokens (report: small)"    "${sentiment_full_small[@]}" --max-length 256
corrected sentiment  "1024 tokens (report: small)"   "${sentiment_full_small[@]}" --max-length 1024
corrected sentiment  "256 tokens (report: medium)"   "${sentiment_full_medium[@]}" --max-length 256
corrected sentiment  "1024 tokens (report: medium)"  "${sentiment_full_medium[@]}" --max-length 1024
