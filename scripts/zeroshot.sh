#!/usr/bin/env bash
# Evaluate CLIP without training: ZeroshotCLIP, or ZeroshotCLIP2 with several templates.
#   bash scripts/zeroshot.sh TRAINER DATASET SEED [CFG] [SHOTS] [--root DIR]   (more: --help)
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" run
exec python tools/run_protocol.py zeroshot "$@"
