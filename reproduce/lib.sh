# shellcheck shell=bash
# A table file sources this file and then lists its rows. Each row is a command that can be pasted into a terminal after
# settings.sh has been sourced there. When you start a table file, it starts run.py, which asks the file for its rows.
#
#     published COLUMN LABEL REPORT RECORD COMMAND...    as the authors ran it; the report's value, their record, or -
#     corrected COLUMN LABEL COMMAND...                  by one recipe, shown beside the published row
#     question TEXT [WHOSE ANSWER]...                    a prompt of the report's appendix, asked of every run
#     together                                           all columns are claimed in one sentence: one family of tests
#     draws SEEDS                                        so many seeds of the corrected rows, each with training examples of its own
#
# Columns with one first word, such as "spam 125" and "spam 250", are one family and shown as one. Of the rows of the
# column best whose labels begin alike, up to a colon, the one with the lowest validation loss is shown.
set -euo pipefail
reproduce=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [[ ${1:-} != rows ]]; then
  if (($#)); then
    echo "error: $0 $*: takes no arguments; settings are environment variables, such as DRY_RUN=1 (reproduce/README.md)" >&2
    exit 2
  fi
  file=$(cd "$(dirname "$0")" && pwd)/${0##*/}
  cd "$reproduce/.."
  if [[ -z ${PYTHON:-} ]]; then PYTHON=$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python3); fi
  if ! command -v "$PYTHON" > /dev/null; then
    echo "error: PYTHON=$PYTHON: names no program that there is; leave it out, or give the python of your environment" >&2
    exit 2
  fi
  exec "$PYTHON" -m reproduce.run "$file"
fi
source "$reproduce/settings.sh"

published() { printf 'published\t%s\t%s\t%s\t%s\t%s\n' "${@:1:4}" "${*:5}"; }
corrected() { printf 'corrected\t%s\t%s\t-\t-\t%s\n' "$1" "$2" "${*:3}"; }
question() { printf 'question' && printf '\t%s' "$@" && printf '\n'; }
together() { echo together; }
draws() { printf 'draws\t%s\n' "$1"; }
