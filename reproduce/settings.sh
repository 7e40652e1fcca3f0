# shellcheck shell=bash disable=SC2034
# The settings that several rows share: what the authors of the report LoRA Finetuning GPT-2 ran, and what the corrected
# rows run instead. Of a flag that is given twice, the last one counts.

# --- published: the authors' settings, slips included --------------------------------------------------------------
# AdamW decayed every parameter, including biases and norms. One loop had a constant learning rate and never clipped;
# the other had a warmup and a cosine decay, and clipped once the warmup was over. Tasks and methods differ in which one
# ran.
authors_adamw=(--optimizer adamw --lr 5e-5 --weight-decay 0.1 --decay-all)
constant=("${authors_adamw[@]}" --schedule constant --warmup-steps 0 --max-grad-norm None)
scheduled=("${authors_adamw[@]}" --schedule cosine --lr-init 1e-5 --lr-min 1e-5 --warmup-ratio 0.2
  --max-grad-norm 1.0 --clip-after-warmup)

# Instructions: 12,000 records in file order, loss on the prompt too, an untied LM head, a prompt that ends before
# '### Response:', 50 answers (the report says 100), validation on five batches of any size.
published_ift=(python scripts/finetune_ift.py --dataset alpaca --subset report --test-examples 50 --max-length 1024
  --no-mask-prompt --no-response-header --untie-head --new-tokens 512 --drop-last --eval-every 25 --eval-batches 5
  --save-every 500 --keep last)

# Classification: the held-out part served both for choosing and for reporting. In the end nothing was chosen on it (the
# last weights were kept), so it is our test part, and there is no validation part.
held_out=(--subset report --validation-share 0 --test-share 0.2)
published_sentiment=(python scripts/finetune_cls.py --dataset imdb "${held_out[@]}" --max-length 256 --pad-to 256
  --pad-id 0 --head-bias)
published_spam=(python scripts/finetune_cls.py --dataset enron --text-column Message "${held_out[@]}" --max-length 512
  --pad-to 512 --pad-id 50256 --head-bias --drop-last)
# Entailment: 1,998 pairs for validation and 1,998 for testing. A pair that was too long lost the end of its second
# sentence.
published_nle=(python scripts/finetune_cls.py --dataset nli_med --subset report --max-length 1024 --pad-to 1024
  --pad-id 50256 --truncate tail --drop-last --eval-every 25 --eval-batches 5 --save-every 500 --keep last)

# LoRA: scaled by alpha instead of alpha / r, with A within 1/sqrt(r). The LM head had an adapter. The class head was
# trained along with its adapter (sentiment), was random and frozen (spam), or was the LM head, with tokens as classes
# (entailment).
paper_lora=(--method lora --lora-scaling paper --lora-init paper)
paper_lora_ift=("${paper_lora[@]}" --lora-targets q k v attn-out mlp-in mlp-out lm-head)
paper_lora_sentiment=("${paper_lora[@]}" --head-training train+lora)
paper_lora_spam=("${paper_lora[@]}" --head-training frozen+lora)
paper_lora_nle=("${paper_lora[@]}" --head lm-token --head-training frozen+lora)

# --- corrected: one recipe for every task, method and rank -----------------------------------------------------------
# The scale is alpha / r, with alpha 16 at every rank. The class is read at the last real token, and the class head is
# trained. The loss is on the response only. Validation and test parts are whole.
recipe=(--optimizer adamw --schedule cosine --warmup-ratio 0.05 --max-grad-norm 1.0 --weight-decay 0.01
  --batch-size 8 --epochs 2)
ift=(python scripts/finetune_ift.py --dataset alpaca --subset report --max-length 512 --new-tokens 128 "${recipe[@]}")
sentiment=(python scripts/finetune_cls.py --dataset imdb --train-examples 12000 --max-length 256 "${recipe[@]}")
spam=(python scripts/finetune_cls.py --dataset enron --train-examples 1600 --max-length 512 "${recipe[@]}")
nle=(python scripts/finetune_cls.py --dataset nli_med --train-examples 12000 --max-length 256 "${recipe[@]}")
full=(--method full)
lora=(--method lora --lora-alpha 16 --lora-scaling standard)

# Each rate of gpt2-medium has the lowest validation loss of its grid, which is in the comment above it (gpt2-nano, seed
# 0). Command: SCALE=nano bash reproduce/learning_rates.sh. Other sizes scale with 1 / width: 4/3 for gpt2, 4/5 for
# large.
# spam, lora: 0.5951 at 1e-4, 0.4977 at 2e-4, 0.4091 at 4e-4, 0.4370 at 8e-4, 0.6609 at 1.6e-3, 0.6728 at 3.2e-3
spam_lora_medium=("${spam[@]}" --model gpt2-medium "${lora[@]}" --lr 4e-4)
spam_lora_large=("${spam[@]}" --model gpt2-large "${lora[@]}" --lr 3.2e-4)
# spam, full: 0.5477 at 2.5e-5, 0.4049 at 5e-5, 0.2923 at 1e-4, 0.3130 at 2e-4, 0.5388 at 4e-4
spam_full_medium=("${spam[@]}" --model gpt2-medium "${full[@]}" --lr 1e-4)
spam_full_large=("${spam[@]}" --model gpt2-large "${full[@]}" --lr 8e-5)
# sentiment, lora: 0.6595 at 1e-4, 0.5193 at 2e-4, 0.5199 at 4e-4, 0.5499 at 8e-4, 0.7022 at 1.6e-3, 0.6931 at 3.2e-3
sentiment_lora_small=("${sentiment[@]}" --model gpt2 "${lora[@]}" --lr 2.6667e-4)
sentiment_lora_medium=("${sentiment[@]}" --model gpt2-medium "${lora[@]}" --lr 2e-4)
sentiment_lora_large=("${sentiment[@]}" --model gpt2-large "${lora[@]}" --lr 1.6e-4)
# sentiment, full: 0.6598 at 2.5e-5, 0.5833 at 5e-5, 0.5352 at 1e-4, 0.5614 at 2e-4, 0.5987 at 4e-4
sentiment_full_small=("${sentiment[@]}" --model gpt2 "${full[@]}" --lr 1.3333e-4)
sentiment_full_medium=("${sentiment[@]}" --model gpt2-medium "${full[@]}" --lr 1e-4)
sentiment_full_large=("${sentiment[@]}" --model gpt2-large "${full[@]}" --lr 8e-5)
# nle, lora: 0.9578 at 1e-4, 0.9100 at 2e-4, 0.8020 at 4e-4, 0.8129 at 8e-4, 0.9712 at 1.6e-3, 0.9616 at 3.2e-3
nle_lora_medium=("${nle[@]}" --model gpt2-medium "${lora[@]}" --lr 4e-4)
nle_lora_large=("${nle[@]}" --model gpt2-large "${lora[@]}" --lr 3.2e-4)
# nle, full: 0.9289 at 2.5e-5, 0.8091 at 5e-5, 0.7753 at 1e-4, 0.7833 at 2e-4, 0.9634 at 4e-4
nle_full_medium=("${nle[@]}" --model gpt2-medium "${full[@]}" --lr 1e-4)
nle_full_large=("${nle[@]}" --model gpt2-large "${full[@]}" --lr 8e-5)
# ift, lora: 5.3863 at 1e-4, 5.3423 at 2e-4, 5.2975 at 4e-4, 5.2652 at 8e-4, 5.2814 at 1.6e-3, 5.4732 at 3.2e-3
ift_lora_medium=("${ift[@]}" --model gpt2-medium "${lora[@]}" --lr 8e-4)
ift_lora_large=("${ift[@]}" --model gpt2-large "${lora[@]}" --lr 6.4e-4)
# ift, full: 5.2522 at 2.5e-5, 5.1783 at 5e-5, 5.1100 at 1e-4, 5.0729 at 2e-4, 5.2316 at 4e-4
ift_full_medium=("${ift[@]}" --model gpt2-medium "${full[@]}" --lr 2e-4)
ift_full_large=("${ift[@]}" --model gpt2-large "${full[@]}" --lr 1.6e-4)
# ift, sgd: 5.5066 at 1.6e-2, 5.4388 at 6.4e-2, 5.3816 at 2.56e-1, 5.4654 at 1.024
ift_sgd_medium=("${ift_lora_medium[@]}" --optimizer sgd --lr 2.56e-1)
# ift, sgd-momentum: 5.4826 at 4e-3, 5.4087 at 1.6e-2, 5.3596 at 6.4e-2, 5.5616 at 2.56e-1
ift_momentum_medium=("${ift_lora_medium[@]}" --optimizer sgd-momentum --momentum 0.9 --lr 6.4e-2)
