#!/usr/bin/env bash
# Check style and run the tests; arguments go to pytest: bash scripts/test.sh -k fewshot -x
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" dev
python -m ruff check .
python -m pytest "$@"
