#!/usr/bin/env bash
# Figure 3: a batch of 4 makes the loss volatile, full fine-tuning of GPT-2 small on reviews (report, section 3.2).
#
#     bash reproduce/figure3_small_batch.sh
#
# The run is that of Table 2 with 1,024 tokens, plus a validation part for the curve. Each point of the authors' curve
# is the loss on 20 reviews, which is volatile at any batch size; the corrected curves use the whole validation part.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
draws 5

run=("${published_sentiment[@]}" --validation-share 0.1 --test-share 0.1 --eval-every 5 --eval-batches 5 --save-every 500 --keep last "${constant[@]}" "${full[@]}" --model gpt2 --max-length 1024 --pad-to 1024 --epochs 1)
published val-loss  "batch 4"   -  0.017  "${run[@]}" --batch-size 4

corrected val-loss  "batch 4"   "${sentiment_full_small[@]}" --max-length 1024 --batch-size 4
corrected val-loss  "batch 32"  "${sentiment_full_small[@]}" --max-length 1024 --batch-size 32
