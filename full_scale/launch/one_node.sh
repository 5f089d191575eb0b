#!/usr/bin/env bash
# Train on the GPUs of one machine, a process each.
#
#     full_scale/launch/one_node.sh lcm_lora --weights weights/stable-diffusion-v1-5 --data DATA --out runs/lcm
#     GPUS=4 full_scale/launch/one_node.sh …        four of them; by default all
#
# Needs   as one_gpu.sh, and --batch a multiple of GPUs × --micro.
# cost: see python -m full_scale.estimate, which says of Stable Diffusion 1.5 at 512 pixels, on 8 GPUs under ddp with CUDA's and
#         NCCL's own 1 to 2 GB still to be added, and of the time: counted work at an ASSUMED 35 % of the data sheet's peak, without
#         communication, not measured,
#             npo                  8 GB    A100 2.1 h    H100 0.7 h
#             lcm_lora             9 GB    A100 0.8 h    H100 0.3 h
#             ddpo                 9 GB    A100 5.2 h    H100 1.6 h
#             pcm_lora            12 GB    A100 1.4 h    H100 0.4 h
#             pcm_adversarial     16 GB    A100 4.8 h    H100 1.5 h
#             reward_gradient     17 GB    A100 0.9 h    H100 0.3 h
#             dpo                 21 GB    A100  10 h    H100 3.2 h     8 GB with --parallel fsdp
#             progressive         24 GB    A100  13 h    H100 4.0 h    10 GB with --parallel fsdp
#             progressive_with_omega  24 GB    A100 9.5 h    H100 3.0 h    10 GB with --parallel fsdp
#             ect                 23 GB    A100 6.3 h    H100 2.0 h     8 GB with --parallel fsdp
#             sct                 23 GB    A100 6.3 h    H100 2.0 h     8 GB with --parallel fsdp
#             finetune            26 GB    A100 0.5 h    H100 0.2 h    11 GB with --parallel fsdp
#             scm                 27 GB    A100 2.9 h    H100 0.9 h
#             guided              27 GB    A100 1.9 h    H100 0.6 h    10 GB with --parallel fsdp
#             swiftbrush          28 GB    A100  11 h    H100 3.3 h    11 GB with --parallel fsdp
#             lcm                 30 GB    A100  13 h    H100 4.0 h     9 GB with --parallel fsdp
#             tcd                 31 GB    A100 1.7 h    H100 0.5 h    10 GB with --parallel fsdp
#             pcm                 31 GB    A100 1.7 h    H100 0.5 h    10 GB with --parallel fsdp
#         Host memory of the node, for each of these: 76 GB while its 8 processes read their weights (90 GB for reward_gradient, with its
#         reward's), at 4 GB a process ASSUMED for Python, CUDA and NCCL; later a checkpoint's copy takes at most 17 GB of it.
# Stop    kill -USR1 of any one worker saves at once and ends the run. Ctrl-C or kill -TERM of torchrun do too, but torchrun gives
#         its workers 30 seconds: where a checkpoint takes longer, the one before it is the last.
# Resume  the same command, also with another number of GPUs. RESTARTS=3 makes torchrun itself start again, from the last
#         checkpoint, when a worker dies.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1  # else workers that are started again read the addresses of the dead, and wait
exec "${PYTHON:-python}" -m full_scale.launch.agent --standalone --nproc_per_node "${GPUS:-gpu}" --max_restarts "${RESTARTS:-0}" \
    -m full_scale.train "$@"
