#!/usr/bin/env bash
# Train on all classes of a source (DATASET), then evaluate on data sets with other classes.
#   bash scripts/xd.sh TRAINER DATASET SEED [CFG] [SHOTS] [--root DIR]   (more: --help)
# TARGETS="dtd eurosat" names the targets: by default the other benchmarks, or for an emoji_* source
# the other embedded data sets. --target-root DIR says where they are, if not in --root:
#   TARGETS=folder bash scripts/xd.sh CoOp emoji_food 1 --target-root my_pictures
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" run
exec python tools/run_protocol.py xd "$@"
