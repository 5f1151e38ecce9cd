#!/usr/bin/env bash
# Train on all classes of a source (DATASET), then evaluate on other pictures of the same classes.
#   bash scripts/dg.sh TRAINER DATASET SEED [CFG] [SHOTS] [--root DIR]   (more: --help)
# From imagenet to V2, Sketch, A and R; from emoji_food to emoji_food_lineart; or to TARGETS.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" run
exec python tools/run_protocol.py dg "$@"
