# shellcheck shell=bash
# Set up an environment and put it first on PATH; the other scripts begin with it:
#   source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" run|dev ["$@"]
# "run" installs requirements.txt, "dev" requirements-dev.txt. An active environment (VIRTUAL_ENV or
# CONDA_PREFIX) is used; otherwise .venv is made. A second call does nothing if the environment is
# up to date. --help among a script's own arguments ("$@") prints the comment at its top.
#
# Example:
#   bash scripts/setup.sh run

set -euo pipefail

setup_die() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

# Print the comment that a script begins with.
setup_help() {
  sed -n '/^# shellcheck/d; 1{/^#!/d;}; /^#/!q; s/^# \{0,1\}//p' "$1"
}

# The first Python on PATH that is recent enough.
setup_find_python() {
  local python
  for python in python3 python3.13 python3.12 python3.11 python3.10; do
    if command -v "$python" >/dev/null && setup_is_recent "$python"; then
      echo "$python"
      return
    fi
  done
  setup_die "Python 3.10 or newer is needed; python3 is $(python3 --version 2>&1 || true)."
}

setup_is_recent() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

# Print what the stamp must hold: this clone, and checksums of what decides the installation.
setup_wanted() {
  pwd
  cksum requirements*.txt constraints.txt engine/pyproject.toml
}

setup_make_environment() {
  local env=$1 python
  if [[ ! -e $env/bin/python ]]; then
    [[ $env == "$PWD/.venv" ]] ||
      setup_die "the active environment $env has no bin/python; deactivate it."
    python=$(setup_find_python)
    echo "Making the environment $env with $("$python" --version) ..."
    "$python" -m venv "$env" ||
      setup_die "cannot make $env; on Debian and Ubuntu, install the package python3-venv first."
  fi
  setup_is_recent "$env/bin/python" ||
    setup_die "the environment $env has no Python 3.10 or newer; deactivate or remove it."
}

# Say which other clone an environment was set up for: its `dassl` goes, and so do its stamps, so
# that its next script installs it again.
setup_take_over() {
  local env=$1 stamp clone lost=
  for stamp in "$env"/.spotlighter-*; do
    [[ -f $stamp ]] || continue
    read -r clone <"$stamp" || true
    if [[ $clone != "$PWD" ]]; then
      rm "$stamp"
      [[ ! -d $clone || $clone -ef $PWD ]] || lost=$clone # else it was moved to here
    fi
  done
  [[ -z $lost ]] || echo "The environment $env was set up for $lost, which loses its dassl to" \
    "$PWD; to keep both, deactivate it (a .venv is made then), or activate another one."
}

# Run pip in the background; on a terminal, show the time and what it does.
setup_install() {
  local env=$1 requirements=$2 log=$1/setup.log pid
  echo "Installing $requirements into $env (minutes at first; log: $log) ..."
  "$env/bin/python" -m pip install --disable-pip-version-check --progress-bar off \
    -r "$requirements" -c constraints.txt >"$log" 2>&1 &
  pid=$!
  trap 'kill "$pid" 2>/dev/null' EXIT # a background process does not hear Ctrl-C
  while [[ -t 1 ]] && kill -0 "$pid" 2>/dev/null; do
    printf '\r\033[K  %3d s  %.70s' "$SECONDS" "$(tail -n 1 "$log")"
    sleep 1
  done
  [[ ! -t 1 ]] || printf '\r\033[K'
  wait "$pid" || {
    tail -n 15 "$log" >&2
    setup_die "the installation failed; the lines above are the end of $log."
  }
  trap - EXIT
}

setup_environment() {
  local kind=$1 env=${VIRTUAL_ENV:-${CONDA_PREFIX:-$PWD/.venv}} stamp requirements
  case $kind in
    run) requirements="requirements.txt" ;;
    dev) requirements="requirements-dev.txt" ;;
    *) setup_die "say what to set up: run or dev." ;;
  esac
  stamp=$env/.spotlighter-$kind
  if [[ ! -x $env/bin/python || ! -f $stamp || $(<"$stamp") != "$(setup_wanted)" ]]; then
    setup_make_environment "$env"
    setup_take_over "$env"
    setup_install "$env" "$requirements"
    setup_wanted >"$stamp"
  fi
  export PATH="$env/bin:$PATH"
}

# Start a command that ends together with the script: by SIGTERM, and with setpriv (Linux) by
# SIGKILL, too. Ctrl-C reaches it from the terminal.
setup_pids=()
setup_start() {
  if setpriv --pdeathsig TERM true 2>/dev/null; then
    set -- setpriv --pdeathsig TERM "$@"
  fi
  "$@" &
  setup_pids+=("$!")
  trap 'kill -TERM "${setup_pids[@]}" 2>/dev/null || true; wait || true; exit 143' TERM
  trap 'wait || true; exit 130' INT
}

# Start a command; wait for it and those that were started before it. The status is 0, or that of
# one that failed.
setup_run() {
  local pid status=0
  setup_start "$@"
  for pid in "${setup_pids[@]}"; do
    wait "$pid" || status=$?
  done
  trap - TERM INT
  setup_pids=()
  return "$status"
}

if [[ " --help -h " == *" ${1:-} "* || " --help -h " == *" ${2:-} "* ]]; then
  setup_help "$0"
  exit
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.." || setup_die "the project's folder is gone."
setup_environment "${1:-}"
