#!/usr/bin/env bash
# Run the whole embedded comparison: all trainers on all embedded data sets, 3 seeds, from base to
# new classes and from each data set to the others, with one table and one HTML report:
#   bash scripts/embedded.sh
# It takes many hours on a few cores. Stop it at any time; the same command goes on from there.
# Environment: as scripts/compare.sh, which it calls; ADDRESS=auto spreads it over a Ray cluster.
#
# Example:
#   SEEDS=1 OUTPUT=output/one_seed bash scripts/embedded.sh
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" run "$@"
export SEEDS=${SEEDS:-1 2 3} PROTOCOLS=${PROTOCOLS:-base2new xd} OUTPUT=${OUTPUT:-output/embedded}
exec bash scripts/compare.sh emoji_animals emoji_faces emoji_food emoji_nature emoji_objects \
  emoji_travel emoji_wear "$@"
