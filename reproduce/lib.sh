# shellcheck shell=bash
# How a line of a table becomes runs. A table file sources this one, names its cells and ends with `finish`:
#
#     version published                                     the cells below are as the authors ran them
#     common --dataset enron --model gpt2-medium            what the cells below have in common
#     cell "rank 16" spam 95.5 95.5 -- finetune_cls --lora-rank 16
#          label     column, report's value, authors' record (- none, = as published), script, flags of its own
#
# Environment (README.md): SEEDS, SCALE, VERSION, ONLY, RUNS, DATA_DIR, LIST, DRY_RUN, JOBS, LAUNCH, PYTHON, MODEL.
((BASH_VERSINFO[0] * 10 + BASH_VERSINFO[1] >= 44)) || { echo "error: bash $BASH_VERSION: must be 4.4 or later" >&2; exit 2; }
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source reproduce/settings.sh
source reproduce/run.sh

: "${SEEDS:=0 1 2}" "${SCALE:=report}" "${VERSION:=both}" "${ONLY:=1/1}" "${RUNS:=runs/reproduce}" "${DATA_DIR:=data}"
: "${LIST:=}" "${DRY_RUN:=}" "${JOBS:=$(getconf _NPROCESSORS_ONLN)}" "${MODEL:=gpt2-nano}" "${JUDGE_MODEL:=}"
: "${PYTHON:=$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}"
: "${LAUNCH:=$PYTHON -m accelerate.commands.launch}"
table=$(basename "$0" .sh)

refuse() {
  echo "error: $1" >&2
  exit 2
}

[[ $SEEDS =~ ^[0-9]+( [0-9]+)*$ ]] || refuse "SEEDS=$SEEDS: must be whole numbers, like \"0 1 2\""
[[ $SCALE =~ ^(report|nano)$ ]] || refuse "SCALE=$SCALE: must be report or nano"
[[ $VERSION =~ ^(published|corrected|both)$ ]] || refuse "VERSION=$VERSION: must be published, corrected or both"
[[ $RUNS != *[[:space:]]* ]] || refuse "RUNS=$RUNS: must be a path without spaces"
[[ $ONLY =~ ^([1-9][0-9]*)/([1-9][0-9]*)$ ]] || refuse "ONLY=$ONLY: must be a share like 3/8, the third of eight"
share=${BASH_REMATCH[1]} shares=${BASH_REMATCH[2]}
((share <= shares)) || refuse "ONLY=$ONLY: there are $shares shares"

# --- learning rates ---------------------------------------------------------------------------------------------------
# Peak learning rates of the corrected rows for gpt2-medium, whose width is 1024; another width takes them times
# 1024 / width. Each has the lowest validation loss of its grid, which stands behind it (gpt2-nano, seed 0).
# Command: SCALE=nano bash reproduce/learning_rates.sh
declare -A tuned=(
  [spam lora]=4e-4  # 0.5951 at 1e-4, 0.4977 at 2e-4, 0.4091 at 4e-4, 0.4370 at 8e-4, 0.6609 at 1.6e-3, 0.6728 at 3.2e-3
  [sentiment lora]=2e-4  # 0.6595 at 1e-4, 0.5193 at 2e-4, 0.5199 at 4e-4, 0.5499 at 8e-4, 0.7022 at 1.6e-3, 0.6931 at 3.2e-3
  [nle lora]=4e-4  # 0.9578 at 1e-4, 0.9100 at 2e-4, 0.8020 at 4e-4, 0.8129 at 8e-4, 0.9712 at 1.6e-3, 0.9616 at 3.2e-3
  [ift lora]=8e-4  # 5.3863 at 1e-4, 5.3423 at 2e-4, 5.2975 at 4e-4, 5.2652 at 8e-4, 5.2814 at 1.6e-3, 5.4732 at 3.2e-3
  [spam full]=1e-4  # 0.5477 at 2.5e-5, 0.4049 at 5e-5, 0.2923 at 1e-4, 0.3130 at 2e-4, 0.5388 at 4e-4
  [sentiment full]=1e-4  # 0.6598 at 2.5e-5, 0.5833 at 5e-5, 0.5352 at 1e-4, 0.5614 at 2e-4, 0.5987 at 4e-4
  [nle full]=1e-4  # 0.9289 at 2.5e-5, 0.8091 at 5e-5, 0.7753 at 1e-4, 0.7833 at 2e-4, 0.9634 at 4e-4
  [ift full]=2e-4  # 5.2522 at 2.5e-5, 5.1783 at 5e-5, 5.1100 at 1e-4, 5.0729 at 2e-4, 5.2316 at 4e-4
  [ift sgd]=2.56e-1  # 5.5066 at 1.6e-2, 5.4388 at 6.4e-2, 5.3816 at 2.56e-1, 5.4654 at 1.024
  [ift sgd-momentum]=6.4e-2  # 5.4826 at 4e-3, 5.4087 at 1.6e-2, 5.3596 at 6.4e-2, 5.5616 at 2.56e-1
)
declare -A width=([gpt2]=768 [gpt2-medium]=1024 [gpt2-large]=1280 [gpt2-xl]=1600)
declare -A blocks=([gpt2]=12 [gpt2-medium]=24 [gpt2-large]=36 [gpt2-xl]=48)

declare -A rescaled=()
rescale() { # LR WIDTH NEW_WIDTH: REPLY becomes LR for the new width, since it falls with 1 / width
  if [[ $2 == "$3" ]]; then REPLY=$1; return; fi
  if [[ ! -v rescaled[$1/$2/$3] ]]; then
    rescaled[$1/$2/$3]=$(LC_ALL=C awk -v lr="$1" -v from="$2" -v to="$3" 'BEGIN { printf "%.4g", lr * from / to }')
  fi
  REPLY=${rescaled[$1/$2/$3]}
}

set_learning_rates() { # SIZE WIDTH: numbers for this width in place of `tuned` and of rates meant for SIZE
  local flag arm=${flags[--method]:-lora}
  if [[ ${flags[--optimizer]:-adamw} != adamw ]]; then arm=${flags[--optimizer]}; fi
  for flag in --lr --lr-init --lr-min; do
    case ${flags[$flag]:-} in
      '') continue ;;
      tuned) rescale "${tuned[$task $arm]}" 1024 "$2" ;;
      *) rescale "${flags[$flag]}" "${width[$1]}" "$2" ;;
    esac
    flags[$flag]=$REPLY
  done
}

# --- scales -----------------------------------------------------------------------------------------------------------
at_most() { # FLAG LIMIT
  ((${flags[$1]:-$2} < $2)) || flags[$1]=$2
}

to_data_at_hand() { # the datasets of the nano scale: $DATA_DIR's, else a bundled one of the same task, else none
  local file bundled='' column=''
  case ${flags[--dataset]:-} in
    enron) file=enron_spam_data.parquet bundled=spamassassin column=body ;;
    imdb) file=imdb_train.parquet ;;
    nli_med) file=sick_nli.csv ;;
    alpaca) file=alpaca_data.json bundled=instructions ;;
    *) return 0 ;;
  esac
  if [[ ${flags[--dataset]} == nli_med ]]; then flags[--dataset]=sick; fi
  if [[ -e $DATA_DIR/$file ]]; then return; fi
  if [[ -z $bundled ]]; then why=${why:-$file is not in DATA_DIR}; return; fi
  flags[--dataset]=$bundled
  if [[ -v flags[--text-column] ]]; then flags[--text-column]=$column; fi
}

to_nano() { # report scale -> two CPU cores: six blocks of width 192, a quarter of the tokens, at most 128
  local flag size=${flags[--model]} own=" $* " examples=500 validation=100 test=500
  local all=${blocks[$size]}
  set_learning_rates "$size" 192
  flags[--model]=$MODEL
  if [[ -v flags[--last-blocks] ]]; then
    flags[--last-blocks]=$(((6 * ${flags[--last-blocks]} + all - 1) / all))
    if ((${flags[--last-blocks]} == 6)); then unset 'flags[--last-blocks]'; fi
  fi
  for flag in --max-length --pad-to; do
    if [[ -v flags[$flag] ]]; then
      flags[$flag]=$((${flags[$flag]} / 4))
      at_most "$flag" 128
    fi
  done
  if [[ $script == finetune_ift ]]; then # an LM head of 50,257 classes takes most of the time
    validation=50 test=150
    at_most --new-tokens 32
  fi
  if [[ $own == *" --train-examples "* ]]; then # what the table sweeps
    examples=1000
    if ((${flags[--train-examples]} > 1000)); then why="more than 1,000 training examples"; fi
  fi
  at_most --train-examples $examples
  at_most --val-examples $validation
  at_most --test-examples $test
  unset 'flags[--subset]'
  to_data_at_hand
}

to_report() { # the hub spells a column of the mails in lower case
  local size=${flags[--model]}
  if [[ -v width[$size] ]]; then set_learning_rates "$size" "${width[$size]}"; fi
  if [[ ${flags[--text-column]:-} == Message && ! -e $DATA_DIR/enron_spam_data.parquet ]]; then
    flags[--text-column]=message
  fi
}

# --- cells ------------------------------------------------------------------------------------------------------------
block=() rows=() folders=() commands=() questions=()
declare -A known_folder=() known_values=() size_of=() label_of=()

version() { current=$1; }
common() { block=("$@"); }

read_flags() { # words -> flags; a flag given again replaces the one before
  local word name=''
  for word; do
    if [[ $word == --* ]]; then
      name=$word flags[$name]=''
    else
      flags[$name]+=${flags[$name]:+ }$word
    fi
  done
}

spelled() { # flags -> one line, in alphabetical order, so that equal settings are equal lines
  local name
  for name in "${!flags[@]}"; do echo "$name${flags[$name]:+ ${flags[$name]}}"; done | LC_ALL=C sort | tr '\n' ' '
}

find_task() {
  case ${flags[--dataset]:-} in
    enron) task=spam ;;
    imdb) task=sentiment ;;
    nli_med) task=nle ;;
    alpaca) task=ift ;;
    *) task=${script#finetune_} ;;
  esac
}

at_scale() { # flags as written -> flags to run, or `why` not
  local size=${flags[--model]:-} written seen
  if [[ -z $size ]]; then return; fi
  unset 'flags[--model]'
  written="$current $column $script $(spelled)"
  flags[--model]=$size
  if [[ $SCALE == report ]]; then to_report; return; fi
  to_nano "$@"
  seen=${size_of[$written]:-}
  if [[ -n $seen && $seen != "$size" ]]; then why="differs from '${label_of[$written]}' in size only"; fi
  size_of[$written]=$size label_of[$written]=$label
}

cell() { # LABEL COLUMN REPORT RECORD -- SCRIPT [FLAG [VALUE...]]...
  local label=$1 column=$2 report=$3 record=$4 script=$6 task why='' seed path hash folder command
  local -A flags=()
  shift 6
  if [[ $report == = ]]; then report=${known_values[$label/$column]% / *}; fi
  if [[ $record == = ]]; then record=${known_values[$label/$column]#* / }; fi
  known_values[$label/$column]="$report / $record"
  if [[ $VERSION != both && $VERSION != "$current" ]]; then return; fi
  read_flags "${block[@]}" "$@"
  find_task
  at_scale "$@"
  path=scripts/$script.py
  if [[ ! -e $path ]]; then path=benchmarks/$script.py; fi
  command="$path $(spelled)"
  hash=$(printf %s "$command" | sha256sum)
  for seed in $SEEDS; do
    folder=$RUNS/$SCALE/$task-${hash:0:12}/seed$seed
    if (((16#${hash:0:8} + seed) % shares != share - 1)); then continue; fi
    add_row "${why:+not available at this scale: $why}" "$folder" "python $command--seed $seed --output-dir $folder"
  done
}

add_row() { # WHY_NOT FOLDER COMMAND
  local start
  printf -v start '%s\t' "$table" "$label" "$column" "$current" "$SCALE" "$seed" "$report" "$record"
  if [[ -n $1 ]]; then
    rows+=("$start$1"$'\t-\t-')
    return
  fi
  rows+=("${start}run"$'\t'"$2"$'\t'"$3")
  if [[ -v known_folder[$2] ]]; then return; fi
  known_folder[$2]=1 folders+=("$2") commands+=("$3")
}
