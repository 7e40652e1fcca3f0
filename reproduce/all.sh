#!/usr/bin/env bash
# Every table, figure and example of the report, and what goes beyond it. The variables are those of a single table. If
# a table fails, the others still run.
#
#     SCALE=nano bash reproduce/all.sh
set -euo pipefail
failed=()
for table in "${BASH_SOURCE%/*}"/{table,figure,inline,appendix,beyond}*.sh; do
  bash "$table" && continue
  if (($? == 130)); then exit 130; fi # Ctrl-C
  failed+=("$table")
done
if ((${#failed[@]})); then
  echo "failed: ${failed[*]}" >&2
  exit 1
fi
