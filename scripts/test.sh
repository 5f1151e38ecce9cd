#!/usr/bin/env bash
# Check style, types and imports, audit the installed packages, and run the tests in random order
# (the seed is printed; -p no:randomly for the usual order). Arguments go to pytest; with arguments,
# nothing is audited. Without, two processes share the tests where there are two cores.
#
# Example:
#   bash scripts/test.sh -k fewshot -x
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" dev "$@"

# Report known vulnerabilities, or that the index is out of reach. The tests run all the same:
# neither is an error of the code.
audit() {
  local found status=0
  found=$(python -m pip_audit --skip-editable --progress-spinner off --timeout 10 2>&1) || status=$?
  if grep -q "known vulnerabilit.* in" <<<"$found"; then
    printf '%s\n' "$found" >&2
  elif ((status != 0)); then
    echo "pip-audit could not run: $(tail -n 1 <<<"$found")"
  elif grep -q "could not be audited" <<<"$found"; then
    echo "pip-audit could not look at $(grep -c "could not be audited" <<<"$found") packages: not found on PyPI from here"
  fi
}

python -m ruff check .
python -m mypy
# Who may import whom: [tool.importlinter] in pyproject.toml.
PYTHONPATH=. lint-imports --no-logo
if [[ $# -gt 0 ]]; then
  exec python -m pytest "$@"
fi
audit
if (($(getconf _NPROCESSORS_ONLN) < 2)); then
  exec python -m pytest
fi

# Half of the work; the other process takes all other folders. Each makes its own session fixtures.
half=(tests/inference tests/lab tests/parity tests/reliability tests/trainers)
log=$(mktemp)
trap 'kill "$pid" 2>/dev/null || true; rm -f "$log"' EXIT
status=0
set -m # so that Ctrl-C is not ignored in the background, where tests send it
python -m pytest "${half[@]}" >"$log" 2>&1 &
pid=$!
set +m
python -m pytest "${half[@]/#/--ignore=}" || status=$?
wait "$pid" || status=$?
cat "$log"
exit "$status"
