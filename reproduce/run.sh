# shellcheck shell=bash disable=SC2154
# What `finish` does with the cells of a table: lists them, forecasts their runs, or makes those that are missing.
# A run is a folder, ${folders[i]}, and its command, ${commands[i]}; its output is in the file beside, FOLDER.log.

list_rows() {
  if ((${#rows[@]})); then printf '%s\n' "${rows[@]}"; fi
}

tell_left_out() { # cells that have no run here, by reason, seeds together
  list_rows | LC_ALL=C awk -F '\t' '
    $9 != "run" && !seen[$2, $3, $4]++ { count[$9]++ }
    END { for (why in count) printf "    %d cells %s\n", count[why], why }' | LC_ALL=C sort
}

most_minutes() { # COMMAND: of training, at the rates of README's "Measured" (tokens a second on one core)
  local rate=3600
  if [[ $1 == *"--method full"* ]]; then rate=2500; fi
  LC_ALL=C awk -v command="$1" -v rate=$rate 'BEGIN {
    count = split(command, word, " ")
    for (i = 1; i < count; i++) value[word[i]] = word[i + 1]
    printf "%.1f", value["--train-examples"] * value["--max-length"] * value["--epochs"] / rate / 60
  }'
}

forecast_runs() { # a run of each kind: seeds cost the same
  local i words
  local -A seen=()
  for i in "${!folders[@]}"; do
    if [[ -v seen[${folders[i]%/*}] ]]; then continue; fi
    seen[${folders[i]%/*}]=1
    echo "${commands[i]}"
    if [[ ${commands[i]} == *benchmarks/* ]]; then
      echo "    time    seconds"
      continue
    fi
    read -ra words <<<"${commands[i]#python }"
    { "$PYTHON" "${words[@]}" --dry-run 2>&1 || true; } | sed '/^$/d; s/^/    /'
    if [[ $SCALE == nano ]]; then
      echo "    time    at most $(most_minutes "${commands[i]}") minutes of training"
    else
      echo "    time    unknown: not measured on this device"
    fi
  done
}

unfinished() { # indices of the runs without results
  local i
  for i in "${!folders[@]}"; do
    if [[ ! -e ${folders[i]}/results.json ]]; then echo "$i"; fi
  done
}

launch_runs() { # one after the other, each with all devices
  local i launcher words
  read -ra launcher <<<"$LAUNCH"
  for i; do
    read -ra words <<<"${commands[i]#python } --resume"
    echo "$(date +%T) ${words[*]}"
    mkdir -p "${folders[i]%/*}"
    if ! "${launcher[@]}" "${words[@]}" >>"${folders[i]}.log" 2>&1; then
      tail -n 20 "${folders[i]}.log" >&2
      echo "failed: ${commands[i]} (log: ${folders[i]}.log)" >&2
      return 1
    fi
  done
}

warm_runs() { # several at a time, a core each, in children of one process: starting takes longer than a short run
  local i
  for i; do printf '%s\t%s --resume\n' "${folders[i]}" "${commands[i]#python }"; done |
    "$PYTHON" reproduce/warm.py --jobs "$JOBS"
}

judge_answers() { # where there is a key and a judge; without, the offline measures stand in
  local folder
  if [[ -z $JUDGE_MODEL || -z ${GEMINI_API_KEY:-} ]]; then return; fi
  for folder in "${folders[@]}"; do
    if [[ ! -s $folder/generations.jsonl ]] || compgen -G "$folder/judge/*/judge.json" >/dev/null; then continue; fi
    "$PYTHON" scripts/judge_ift.py --generations "$folder" --judge-model "$JUDGE_MODEL"
  done
}

answer_questions() { # of the report's appendix, by the base and by the fine-tuned model
  local folder
  if ((${#questions[@]} == 0)); then return; fi
  for folder in "${folders[@]}"; do
    if [[ -s $folder.answers.txt ]]; then continue; fi
    "$PYTHON" scripts/generate.py --run "$folder" --compare --prompt "${questions[@]}" >"$folder.new"
    mv "$folder.new" "$folder.answers.txt"
  done
}

make_runs() {
  local left
  mapfile -t left < <(unfinished)
  echo "$table: ${#folders[@]} runs, ${#left[@]} to make ($SCALE scale, seeds $SEEDS, share $ONLY)"
  tell_left_out
  if ((${#left[@]})); then
    if [[ $SCALE == nano ]]; then warm_runs "${left[@]}"; else launch_runs "${left[@]}"; fi
  fi
  judge_answers
  answer_questions
}

finish() {
  if [[ -n $LIST ]]; then
    list_rows
  elif [[ -n $DRY_RUN ]]; then
    forecast_runs
    tell_left_out
  else
    make_runs
  fi
}
