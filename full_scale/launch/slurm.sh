#!/usr/bin/env bash
#SBATCH --job-name=full-scale
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --mem=96G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=USR1@180
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# Train on several machines under SLURM: srun starts a process for each GPU, and the job queues itself again until it is done.
#
#     sbatch full_scale/launch/slurm.sh lcm_lora --weights … --data … --out /shared/runs/lcm
#     sbatch --nodes=4 --time=4:00:00 full_scale/launch/slurm.sh …        flags of sbatch override the lines above
#
# Needs   to be submitted from the repository's folder, the environment active (or PYTHON=…/bin/python), --out, --data and
#         --weights on a file system that all nodes share, as many tasks as GPUs on each node, and --batch a multiple of
#         processes × --micro. Every task must see all GPUs of its node: no --gpus-per-task, no --gpu-bind.
# cost: see python -m full_scale.estimate … --processes GPUS_IN_ALL; one_node.sh has its figures for 8. Time falls with their number, less
#         what the network costs; memory does not under ddp. --mem is a node's, a tenth above the estimate for Stable Diffusion 1.5.
# Stop    180 seconds before the time limit SLURM sends USR1 to the processes: they save and end, and this script queues the
#         job again. A lost node or a preemption is queued again by SLURM. scancel ends it for good.
# Resume  the same command, if it was ended for good. A job that fails without having come further than its last start is
#         not queued again: read the log.
set -uo pipefail
root=${SLURM_SUBMIT_DIR:-$PWD}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))

out=runs/train
previous=
for word in "$@"; do
    [[ $previous == --out ]] && out=$word
    [[ $word == --out=* ]] && out=${word#--out=}
    previous=$word
done
last() { ls -d "$out"/step-???????? 2>/dev/null | tail -n 1; }

before=$(last)
srun --kill-on-bad-exit=1 "${PYTHON:-python}" -m full_scale.train "$@"
status=$?
if [[ -e $out/done ]]; then
    echo "slurm.sh: $out is done"
elif [[ $status -eq 0 || $(last) != "$before" ]]; then
    echo "slurm.sh: $out is not done (status $status, last checkpoint $(last)): queued again"
    scontrol requeue "$SLURM_JOB_ID"
else
    echo "slurm.sh: status $status and no new checkpoint in $out: not queued again" >&2
    exit "$status"
fi
