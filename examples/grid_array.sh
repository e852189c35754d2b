#!/usr/bin/env bash
# Spread a grid over a job array: every task runs the same command on one folder, and takes what no other has taken.
#
#   sbatch --array=1-4 --gpus=1 examples/grid_array.sh                 four tasks of Slurm
#   examples/grid_array.sh & examples/grid_array.sh & wait             two processes of one machine
#
# A task that is killed loses only the pictures at work; start any task again and it goes on. The last one at work writes the
# sheets and the page. The folder has to be one that all tasks see.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"

python -m k_diffusing render \
    --model "${MODEL:-demo}" \
    --samplers euler heun dpmpp_2m uni_pc \
    --sigma-grid karras \
    --evaluations ${EVALUATIONS:-8 12} \
    --seeds ${SEEDS:-0 1} \
    --output "${FOLDER:-output/array}"
