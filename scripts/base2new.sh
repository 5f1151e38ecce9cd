#!/usr/bin/env bash
# Train on the base classes of a data set, then evaluate on its base and on its new classes.
set -euo pipefail

usage() {
  cat >&2 <<'TEXT'
usage: bash scripts/base2new.sh TRAINER DATASET SEED [CFG] [SHOTS]

  TRAINER  a folder in configs/trainers: CoOp, MaPLe, PromptKD, Spotlighter, ZeroshotCLIP ...
  DATASET  a file in configs/datasets: emoji_food, caltech101 ...
  SEED     0, 1, 2 ...
  CFG      a file in configs/trainers/TRAINER (tiny_emoji for emoji_* data sets, else ViT-B/16)
  SHOTS    training pictures a class (16); 0: all, as PromptKD is published

Environment: DATA, the folder that holds the data sets (data); OUTPUT, where results go
(output/base2new); OPTS, further settings, as OPTS="OPTIM.LR 0.01 OPTIM.MAX_EPOCH 5".
A run that left results.json is not repeated; one that crashed is.
TEXT
}

refuse() {
  printf 'base2new: %s\n\n' "$1" >&2
  usage
  exit 2
}

# The stems of the yaml files in a folder, on one line.
configs_in() {
  find "$1" -maxdepth 1 -name '*.yaml' -exec basename {} .yaml \; | sort | paste -sd ' ' -
}

default_config() {
  case $dataset/$trainer in
    emoji_*) echo tiny_emoji ;;
    */CoOp) echo vit_b16_ep50_ctxv1 ;;
    */Spotlighter) echo vit_b16_ep20_ctxv1 ;;
    */CoCoOp) echo vit_b16_c4_ep10_batch1_ctxv1 ;;
    */MaPLe) echo vit_b16_c2_ep5_batch4_2ctx ;;
    */PromptSRC) echo vit_b16_c2_ep20_batch4_4+4ctx ;;
    */PromptKD) echo vit_b16_c2_ep20_batch8_4+4ctx ;;
    */TextRefiner) echo vit_b16_ep10_ctxv1 ;;
    *) echo vit_b16 ;;
  esac
}

# run CLASSES FOLDER [FLAG...]: one call of train.py, unless its results are there. Results on new
# classes that are older than those on base belong to a model that was trained before.
run() {
  local classes=$1 folder=$2
  if [[ -e $folder/results.json && ! $base/results.json -nt $folder/results.json ]]; then
    echo "$trainer on $dataset ($classes classes), seed $seed: done, see $folder"
    return
  fi
  python train.py --root "${DATA:-data}" --seed "$seed" --trainer "$trainer" \
    --dataset-config-file "configs/datasets/$dataset.yaml" \
    --config-file "configs/trainers/$trainer/$cfg.yaml" --output-dir "$folder" "${@:3}" \
    DATASET.NUM_SHOTS "$shots" DATASET.SUBSAMPLE_CLASSES "$classes" ${opts[@]+"${opts[@]}"}
}

[[ $# -ge 3 && $# -le 5 ]] || refuse "expected 3 to 5 arguments, got $#."
trainer=$1 dataset=$2 seed=$3 shots=${5:-16}
cfg=${4:-$(default_config)}
read -r -a opts <<<"${OPTS:-}"

# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" run

[[ -d configs/trainers/$trainer ]] ||
  refuse "no trainer $trainer; there are: $(find configs/trainers -mindepth 1 -exec basename {} \; -prune | sort | paste -sd ' ' -)."
[[ -f configs/datasets/$dataset.yaml ]] ||
  refuse "no data set $dataset; there are: $(configs_in configs/datasets)."
[[ -f configs/trainers/$trainer/$cfg.yaml ]] ||
  refuse "no config $cfg for $trainer; there are: $(configs_in "configs/trainers/$trainer")."
[[ $seed =~ ^[0-9]+$ ]] || refuse "SEED must be a whole number from 0, got $seed."
[[ $shots =~ ^[0-9]+$ ]] || refuse "SHOTS must be a whole number, got $shots."

output=${OUTPUT:-output/base2new}
run_path=$dataset/shots_$shots/$trainer/$cfg/seed$seed
base=$output/train_base/$run_path
new=$output/test_new/$run_path

run base "$base"
run new "$new" --eval-only --model-dir "$base"
