#!/usr/bin/env bash
# Spotlighter beside CoOp and zero-shot CLIP, from base to new classes, on the embedded benchmark:
#   bash scripts/demo.sh [DATASET ...]          (default: emoji_animals emoji_food)
# Environment: SEEDS, as SEEDS="1 2 3" (1). What is done is not repeated; remove output/demo to
# begin anew.
#
# Example:
#   SEEDS="1 2 3" bash scripts/demo.sh emoji_faces
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" run "$@"

[[ $# -gt 0 ]] || set -- emoji_animals emoji_food
read -r -a seeds <<<"${SEEDS:-1}"
output=output/demo
spotlighter=$output/train_base/$1/shots_16/Spotlighter/tiny_emoji/seed${seeds[0]}

echo "A few minutes; where a data set is new, its pictures are drawn first."
TRAINERS="ZeroshotCLIP CoOp Spotlighter" OUTPUT=$output setup_run bash scripts/compare.sh "$@"
setup_run python tools/visualise.py --model-dir "$spotlighter" --output "$output/spotlight.png"
echo "What Spotlighter looked at is in $output/spotlight.png."
