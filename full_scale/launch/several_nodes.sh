#!/usr/bin/env bash
# Train on several machines without a scheduler: start the same command on each of them.
#
#     NODES=2 HEAD=node0:29500 full_scale/launch/several_nodes.sh lcm_lora --weights … --data … --out /shared/runs/lcm
#
# Needs   as one_node.sh, and
#         HEAD    the name and a free port of one of the machines, which all can reach,
#         NODES   how many machines; each waits WAIT seconds, 100 unless you say more, for all of them,
#         --out, --data and --weights on a file system that all share, and as many GPUs on each.
# cost: see python -m full_scale.estimate … --processes GPUS_IN_ALL; one_node.sh has its figures for 8. Time falls with their number, less
#         what the network costs; memory does not under ddp.
# Stop    kill -USR1 of any one worker on any machine saves at once and ends the run everywhere.
# Resume  the same command on each machine. When a worker or a machine dies, the others start again from the last checkpoint,
#         up to RESTARTS times, as soon as there are NODES machines: start the command again on the lost one, or on another,
#         within WAIT seconds. Later, start it again on all of them.
set -euo pipefail
: "${NODES:?how many machines, e.g. NODES=2}" "${HEAD:?name and port of one of the machines, e.g. HEAD=node0:29500}"
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1  # else workers that are started again read the addresses of the dead, and wait
exec "${PYTHON:-python}" -m full_scale.launch.agent --nnodes "$NODES" --nproc_per_node "${GPUS:-gpu}" --max_restarts "${RESTARTS:-3}" \
    --rdzv_backend c10d --rdzv_endpoint "$HEAD" --rdzv_id "${RUN_ID:-full-scale}" \
    --rdzv_conf join_timeout="${WAIT:-100}" -m full_scale.train "$@"
