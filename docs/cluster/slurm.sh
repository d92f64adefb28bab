#!/usr/bin/env bash
# A sweep on several nodes of Slurm:  sbatch slurm.sh SPEC [arguments of ablate sweep]
#
# Ray starts on every node of the job, the sweep runs on the first one. Submit it from a folder that all nodes share:
# the study is in runs/ below it. Before the time is over the sweep ends cleanly and the job is queued again; so it
# goes on until the study is done. To go on after anything else: the same sbatch command.
#
#SBATCH --job-name=ablate
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
# For GPUs, with one # less:
##SBATCH --gpus-per-node=1
#SBATCH --exclusive
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

spec=${1:?usage: sbatch slurm.sh SPEC [arguments of ablate sweep]}
shift
environment=${ABLATE_ENVIRONMENT:-$SLURM_SUBMIT_DIR/.venv}

cd "$SLURM_SUBMIT_DIR"
# shellcheck source=/dev/null
source "$environment/bin/activate"

# SIGTERM goes to the sweep alone: it stops its trials while Ray is still there, and what is done is kept.
sweep='' asked_to_end=''
trap 'asked_to_end=yes; [ -z "$sweep" ] || kill -TERM "$sweep"' TERM

# One cluster a job: a port and a folder of its own, and a token that no other job knows.
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1) # where this script runs
ip=$(hostname -I | cut -d ' ' -f 1)                               # with several networks: the one that nodes share
port=$((20000 + SLURM_JOB_ID % 10000))
address=$ip:$port
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
# What Slurm has given, and not what the machine has:
given=(--num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --block)

srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
    ray start --head --node-ip-address="$ip" --port="$port" --include-dashboard=false \
    --temp-dir="/tmp/ray-$SLURM_JOB_ID" "${given[@]}" &
until ray health-check --address "$address" >/dev/null 2>&1; do sleep 2; done
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    srun --overlap --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" \
        ray start --address="$address" "${given[@]}" &
fi
python - "$address" "$SLURM_JOB_NUM_NODES" <<'PYTHON'
import sys, time
import ray

ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
for _ in range(60):  # two minutes; a node that comes later is used from then on
    if sum(node["Alive"] for node in ray.nodes()) >= int(sys.argv[2]):
        break
    time.sleep(2)
PYTHON

ablate sweep "$spec" --address "$address" "$@" &
sweep=$!
[ -z "$asked_to_end" ] || kill -TERM "$sweep" # it came while Ray started
code=0
wait "$sweep" || code=$?
if [ -n "$asked_to_end" ]; then
    code=0
    wait "$sweep" || code=$? # the first wait was ended by the signal, and not by the sweep
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
