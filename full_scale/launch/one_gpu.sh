#!/usr/bin/env bash
# Train on one GPU, or with --tiny on a CPU.
#
#     full_scale/launch/one_gpu.sh lcm_lora --weights weights/stable-diffusion-v1-5 --data DATA --out runs/lcm
#
# Needs   the packages (pip install -e '.[full]'), DATA from full_scale.prepare, and the weights.
# cost: see python -m full_scale.estimate, which says of Stable Diffusion 1.5 at 512 pixels, on one GPU with CUDA's own 1 to 2 GB
#         still to be added to the memory, and of the time: counted work at an ASSUMED 35 % of the data sheet's peak, not measured,
#             lcm_lora                           9 GB    RTX 4090 12 h     A100 6.5 h    H100 2.1 h
#             finetune --recompute              22 GB    RTX 4090 9.4 h    A100 5.0 h    H100 1.6 h
#         Host memory, with 4 GB ASSUMED for Python and CUDA: lcm_lora 9.5 GB while it reads its weights, finetune 18 GB with a
#         checkpoint's copy.
# Stop    Ctrl-C, kill -TERM or kill -USR1 saves at once and ends the run; a second Ctrl-C does not wait for that.
# Resume  the same command: a run goes on from the newest whole checkpoint in --out, whatever ended it.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m full_scale.train "$@"
