#!/usr/bin/env bash
# Compare Spotlighter, CoOp and zero-shot CLIP from base to new classes on the embedded benchmark:
#   bash scripts/demo.sh [DATASET ...]          (default: emoji_animals emoji_food)
# Environment: SEEDS, as SEEDS="1 2 3" (1); OPTS, settings of all runs. Without, features of pictures
# are kept in output/demo/features until the end, and epochs go round four augmented views of each
# training picture, where published configs draw fresh ones: OPTS= does that. Runs that are done are
# not repeated; remove output/demo to start again.
#
# Example:
#   SEEDS="1 2 3" bash scripts/demo.sh emoji_faces
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" run "$@"

[[ $# -gt 0 ]] || set -- emoji_animals emoji_food
read -r -a seeds <<<"${SEEDS:-1}"
output=output/demo
OPTS=${OPTS-FEATURES.KEEP disk FEATURES.DIR $output/features FEATURES.VIEWS 4}
spotlighter=train_base/$1/shots_16/Spotlighter/tiny_emoji/seed${seeds[0]}

echo "This takes a few minutes. The pictures of a new data set are drawn first."
TRAINERS="ZeroshotCLIP CoOp Spotlighter" OUTPUT=$output OPTS=$OPTS SPOTLIGHT=$spotlighter \
  setup_run bash scripts/compare.sh "$@"
echo "The patches that Spotlighter kept are drawn in $output/spotlight.png."
rm -rf "$output/features"
