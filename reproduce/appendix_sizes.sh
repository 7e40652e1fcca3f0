#!/usr/bin/env bash
# Appendix 5.5.1: answers of GPT-2 large and medium after full fine-tuning on instructions.
#
#     bash reproduce/appendix_sizes.sh
#
# The prompts are the report's; the answers of each run are in FOLDER.answers.txt.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

question "Edit the following sentence for grammar. He go to the park every day." \
  "large and medium" "He goes to the park every day."
question "Convert the active sentence to passive: 'The manager approved the project.'" \
  "large" "The project was approved by the manager." "medium" "The manager approved the project."
question "Translate the following sentence into French. Where is the nearest restaurant?" \
  "large, called correct there" "Le restaurant est le plus proche." "medium" "Le café de la café."
question "What is the contraction for \"will not\"?" \
  "large and medium" "The contraction for \"will not\" is \"will not\"."
question "Compose a tweet about the benefits of studying abroad." \
  "large" "Studying abroad has many benefits, from improved job prospects to improved social and cultural experiences. It can help you gain valuable experience and broaden your knowledge of different cultures. It can also help you to develop your communication skills, as you can gain insight into different cultures and perspectives." \
  "medium" "Studying abroad can help you to gain valuable knowledge and experience that can help you to make a better future for yourself and your family. #StudyingForLife #StudyForLife."

run=("${published_ift[@]}" "${scheduled[@]}" "${full[@]}" --batch-size 2 --epochs 1)
published answers  "full (report: large)"   -  -  "${run[@]}" --model gpt2-large
published answers  "full (report: medium)"  -  -  "${run[@]}" --model gpt2-medium

corrected answers  "full (report: large)"   "${ift_full_large[@]}"
corrected answers  "full (report: medium)"  "${ift_full_medium[@]}"
