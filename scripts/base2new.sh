#!/usr/bin/env bash
# Train on the base classes of a data set, then evaluate on its base and on its new classes.
#   bash scripts/base2new.sh TRAINER DATASET SEED [CFG] [SHOTS] [--root DIR]   (more: --help)
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" run
exec python tools/run_protocol.py base2new "$@"
