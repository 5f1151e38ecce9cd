#!/usr/bin/env bash
# Run trainers on data sets, then make a table and an HTML report:
#   bash scripts/compare.sh [DATASET ...] [--root DIR]        (default: emoji_animals emoji_food)
# Environment: TRAINERS, a list of TRAINER or TRAINER:CONFIG (all of configs/trainers/defaults.yaml,
# and Spotlighter on six bases; PromptKD learns from PromptSRC); PROTOCOLS, of base2new fewshot
# zeroshot xd dg (base2new); SEEDS, as SEEDS="1 2 3" (1); DATA, the folder of all data sets (data);
# OUTPUT (output/compare); ADDRESS, of a Ray cluster (this machine, without Ray); OPTS, further
# settings, as OPTS="OPTIM.MAX_EPOCH 5"; SPOTLIGHT, a run of Spotlighter below OUTPUT whose kept
# patches are drawn in OUTPUT/spotlight.png. Runs that are done are not repeated.
#
# Example:
#   TRAINERS="CoOp Spotlighter" SEEDS="1 2 3" bash scripts/compare.sh emoji_faces
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" run "$@"

root=${DATA:-data} datasets=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --root) root=${2:?compare: --root needs a folder} && shift ;;
    *) datasets+=("$1") ;;
  esac
  shift
done
[[ ${#datasets[@]} -gt 0 ]] || datasets=(emoji_animals emoji_food)
all=$(sed -n 's/^\([A-Za-z0-9]*\):.*/\1/p' configs/trainers/defaults.yaml)
on_bases=$(printf ' Spotlighter:tiny_emoji_%s' cocoop kgcoop prograd maple promptsrc promptkd)
read -r -d '' -a trainers <<<"${TRAINERS:-$all$on_bases}" || true
read -r -a protocols <<<"${PROTOCOLS:-base2new}"
read -r -a seeds <<<"${SEEDS:-1}"
read -r -a opts <<<"${OPTS:-}"
output=${OUTPUT:-output/compare}
where=(--processes)
[[ -z ${ADDRESS:-} ]] || where=(--address "$ADDRESS")

setup_run python tools/sweep.py --protocols "${protocols[@]}" --datasets "${datasets[@]}" \
  --trainers "${trainers[@]}" --seeds "${seeds[@]}" --root "$root" --output "$output" \
  "${where[@]}" --opts ${opts[@]+"${opts[@]}"}
# Page and picture are made while the tables are printed.
setup_start python tools/report.py "$output" --root "$root" --output "$output/report.html"
[[ -z ${SPOTLIGHT:-} ]] || setup_start python tools/visualise.py \
  --model-dir "$output/$SPOTLIGHT" --output "$output/spotlight.png"
setup_run python tools/collect_results.py "$output" --markdown "$output/results.md" \
  --csv "$output/results.csv" --latex "$output/results.tex" --columns trainer dataset seed \
  base new hm images_per_s learned_parameters train_s config settings shots source all \
  nll_all nll_base nll_new ece_all ece_base ece_new
echo "The table is in $output/results.md, one row per seed in $output/results.csv, the HTML report"
echo "in $output/report.html."
