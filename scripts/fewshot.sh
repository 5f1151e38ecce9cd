#!/usr/bin/env bash
# Train on 1, 2, 4, 8 and 16 pictures of each class, evaluate on all classes.
#   bash scripts/fewshot.sh TRAINER DATASET SEED [CFG] [SHOTS] [--root DIR]   (more: --help)
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" run
exec python tools/run_protocol.py fewshot "$@"
