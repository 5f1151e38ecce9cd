#!/usr/bin/env bash
# Your own photos: check a folder, train three models on it, show what they get wrong, export one.
#   bash scripts/own.sh FOLDER [--config tiny|vit_b16|vit_b32|vit_l14] [--shots N] [--output DIR]
# FOLDER holds a folder of pictures for each class. Time and memory are said first; --dry-run stops
# there. Everything is written to output/own (or DIR), nothing to FOLDER. The same command goes on
# where it was stopped.
#
# Example:
#   bash scripts/own.sh ~/Pictures/birds
set -euo pipefail
from=$PWD
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" run "$@"
project=$PWD
cd "$from" # FOLDER and DIR are relative to where the script was called
exec python "$project/tools/own.py" "$@"
