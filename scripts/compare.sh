#!/usr/bin/env bash
# Trainers side by side, from base to new classes, in one table:
#   bash scripts/compare.sh [DATASET ...]          (default: emoji_animals emoji_food)
# Environment: TRAINERS, a list of TRAINER or TRAINER:CONFIG (all; PromptKD learns from PromptSRC);
# SEEDS, as SEEDS="1 2 3" (1); OUTPUT (output/compare). What is done is not repeated.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" run

[[ $# -gt 0 ]] || set -- emoji_animals emoji_food
on_bases="Spotlighter:tiny_emoji_cocoop Spotlighter:tiny_emoji_maple
Spotlighter:tiny_emoji_promptsrc Spotlighter:tiny_emoji_promptkd"
all="ZeroshotCLIP ZeroshotCLIP2 CoOp CoCoOp MaPLe PromptSRC PromptKD TextRefiner Spotlighter"
read -r -d '' -a trainers <<<"${TRAINERS:-$all $on_bases}" || true
read -r -a seeds <<<"${SEEDS:-1}"
output=${OUTPUT:-output/compare}

python tools/side_by_side.py "$@" --trainers "${trainers[@]}" --seeds "${seeds[@]}" \
  --output "$output"
python tools/collect_results.py "$output" --markdown "$output/results.md" \
  --csv "$output/results.csv" \
  --columns trainer dataset seed base new hm images_per_s learned_parameters config
echo "The table is in $output/results.md, a row a seed in $output/results.csv."
