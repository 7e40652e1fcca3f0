# shellcheck shell=bash disable=SC2034
# The settings that several cells share: what the report's authors ran, and what the corrected rows run instead.

# --- published: the authors' settings, quirks included -------------------------------------------------------------
# AdamW decayed every parameter, biases and norms too. One loop had a constant learning rate and never clipped; the
# other warmed up, fell by a cosine, and clipped once the warmup was over. Which one ran differed by task and method.
authors_adamw=(--optimizer adamw --lr 5e-5 --weight-decay 0.1 --decay-all)
constant=("${authors_adamw[@]}" --schedule constant --warmup-steps 0 --max-grad-norm None)
scheduled=("${authors_adamw[@]}" --schedule cosine --lr-init 1e-5 --lr-min 1e-5 --warmup-ratio 0.2
  --max-grad-norm 1.0 --clip-after-warmup)

# Instructions: 12,000 records in file order, loss on the prompt too, an LM head of its own, a prompt that ends before
# '### Response:', 50 answers (the report says 100), validation on five batches whatever their size.
published_ift=(--dataset alpaca --subset report --test-examples 50 --max-length 1024 --no-mask-prompt
  --no-response-header --untie-head --new-tokens 512 --drop-last --eval-every 25 --eval-batches 5 --save-every 500
  --keep last)

# Classification: what was held out served for choosing and for reporting at once. Nothing was chosen on it in the end
# (the last weights were kept), so it is our test part, and there is no validation part.
held_out=(--subset report --validation-share 0 --test-share 0.2)
published_sentiment=(--dataset imdb "${held_out[@]}" --max-length 256 --pad-to 256 --pad-id 0 --head-bias)
published_spam=(--dataset enron --text-column Message "${held_out[@]}" --max-length 512 --pad-to 512 --pad-id 50256
  --head-bias --drop-last)
# Entailment: 1,998 pairs to validate and 1,998 to test. Too long a pair lost the end of its second sentence.
published_nle=(--dataset nli_med --subset report --max-length 1024 --pad-to 1024 --pad-id 50256 --truncate tail
  --drop-last --eval-every 25 --eval-batches 5 --save-every 500 --keep last)

# LoRA: scale alpha instead of alpha / r, A within 1/sqrt(r). The LM head had an adapter; the class head was trained
# beside its adapter (sentiment), was frozen and random (spam), or was the LM head with classes for tokens (entailment).
paper_lora=(--method lora --lora-scaling paper --lora-init paper)
paper_lora_ift=("${paper_lora[@]}" --lora-targets q k v attn-out mlp-in mlp-out lm-head)
paper_lora_sentiment=("${paper_lora[@]}" --head-training train+lora)
paper_lora_spam=("${paper_lora[@]}" --head-training frozen+lora)
paper_lora_nle=("${paper_lora[@]}" --head lm-token --head-training frozen+lora)

# --- corrected: one recipe for every task, method and rank -----------------------------------------------------------
# Alpha is 16 at every rank and divided by it; the class is read at the last real token and its head is trained; loss on
# the response alone; whole validation and test parts; `tuned` is the learning rate of lib.sh's table.
recipe=(--optimizer adamw --lr tuned --schedule cosine --warmup-ratio 0.05 --max-grad-norm 1.0 --weight-decay 0.01
  --batch-size 8 --epochs 2)
corrected_ift=(--dataset alpaca --subset report --max-length 512 --new-tokens 128 "${recipe[@]}")
corrected_sentiment=(--dataset imdb --train-examples 12000 --max-length 256 "${recipe[@]}")
corrected_spam=(--dataset enron --train-examples 1600 --max-length 512 "${recipe[@]}")
corrected_nle=(--dataset nli_med --train-examples 12000 --max-length 256 "${recipe[@]}")
lora=(--method lora --lora-alpha 16 --lora-scaling standard)
full=(--method full)
