#!/usr/bin/env bash
# Guard a sampler in continuous integration: this script fails when yours no longer does what it did.
#
#   examples/guard_a_sampler.sh                                        the port in this folder
#   examples/guard_a_sampler.sh mine.py:sample_mine k:dpmpp_2m 1e-5    yours, against what, how near
#
# `k-diffusing compare` exits with 1 where two samplers part, and says where; `k-diffusing judge` exits with 1 for a sampler
# that is wrong in distribution or below an order of accuracy. Both run on a CPU in seconds, without a download.
set -euo pipefail
cd "$(dirname "$0")/.."

mine=${1:-examples/port_a_sampler.py:sample_heun}
original=${2:-k:heun}
tolerance=${3:-1e-5}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python -m k_diffusing compare "$original" "$mine" --steps 8 --tolerance "$tolerance" --output "$folder"
python -m k_diffusing judge "$mine" --order 2
