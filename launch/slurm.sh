#!/bin/bash
# Trains on several nodes of a SLURM cluster:
#   sbatch --nodes=2 launch/slurm.sh configs/quickstart.py runs/quickstart [--config.key=value ...]
# The workdir lies on a file system that all nodes share. One task a node sees all of its GPUs.
#SBATCH --job-name=vqdit
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
# A warning two minutes before the end: the run saves, stops with exit code 75, and is queued again.
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail

config=${1:?usage: sbatch launch/slurm.sh CONFIG WORKDIR [FLAGS]}
workdir=${2:?usage: sbatch launch/slurm.sh CONFIG WORKDIR [FLAGS]}
shift 2
python=${PYTHON:-.venv/bin/python}
# JAX would else give each task the one GPU of its local number.
JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $((${SLURM_GPUS_ON_NODE:-1} - 1)))
export JAX_LOCAL_DEVICE_IDS

# All tasks that were asked to stop end with 75. As srun kills the rest when one ends badly, and then tells of the
# killed ones, such an end is noted in a file and is no bad one.
stopped=$workdir/stopped-$SLURM_JOB_ID
rm -f "$stopped"
export stopped
code=0
srun --kill-on-bad-exit=1 bash -c 'code=0; "$@" || code=$?; if [ $code -eq 75 ]; then touch "$stopped"; code=0; fi; exit $code' \
  task "$python" train.py --config="$config" --workdir="$workdir" "$@" || code=$?
if [ "$code" -eq 0 ] && [ -e "$stopped" ]; then
  rm "$stopped"
  scontrol requeue "$SLURM_JOB_ID"
  exit 75
fi
exit "$code"
