#!/usr/bin/env bash
# Every table, figure and example of the report, and what goes beyond it. The variables are those of one table.
#
#     SCALE=nano bash reproduce/all.sh
set -euo pipefail
for table in "${BASH_SOURCE%/*}"/{table,figure,inline,appendix,beyond}*.sh; do bash "$table"; done
