#!/usr/bin/env bash
# Every table, figure and example of the report, and what goes beyond it. The variables are those of a single table. If
# a table fails, the others still run.
#
#     SCALE=nano bash reproduce/all.sh
set -euo pipefail
if (($#)); then
  echo "error: $0 $*: takes no arguments; settings are environment variables, such as DRY_RUN=1 (reproduce/README.md)" >&2
  exit 2
fi
failed=()
for table in "$(dirname "${BASH_SOURCE[0]}")"/{table,figure,inline,appendix,beyond}*.sh; do
  bash "$table" && continue
  if (($? == 130)); then exit 130; fi # Ctrl-C
  failed+=("$table")
done
if ((${#failed[@]})); then
  echo "failed: ${failed[*]}" >&2
  exit 1
fi
