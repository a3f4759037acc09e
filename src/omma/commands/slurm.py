"""`omma slurm`: a batch file that saves ahead of the time limit, is requeued and resumes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from omma.errors import UsageError
from omma.systems.recipes import open_recipe

_TEMPLATE = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node={gpus}
#SBATCH --gpus-per-node={gpus}
#SBATCH --cpus-per-task={cpus}
#SBATCH --time={hours}:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={name}-%j.log
# TERM arrives 120 s ahead of the limit: omma saves and exits with 143, the job is requeued and resumes.

export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK

if [ -e "${{OMMA_RUNS:-runs}}/{name}/config.yaml" ]; then
  COMMAND="resume {name}"
else
  COMMAND={train}
fi
export COMMAND
srun bash -c 'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS exec omma $COMMAND'
code=$?
if [ $code -eq 143 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit $code
"""


def sbatch(
    recipe: str, overrides: Sequence[str], *, nodes: int, gpus: int, hours: int, name: str | None = None
) -> str:
    """The text of an sbatch file: one process a GPU, the run resumed whenever the job starts again.

    Args:
        recipe: what to train; checked here, so that a mistake does not wait in the queue.
        overrides: `key.path=value` words.
        nodes: number of nodes.
        gpus: GPUs, and so processes, a node.
        hours: time limit.
        name: of run and job; default SYSTEM-RECIPE.
    """
    found = open_recipe(recipe, overrides)
    chosen = name or found.name.replace("/", "-")
    words = [recipe, *overrides, "--name", chosen]
    if any(character.isspace() for word in words for character in word):
        raise UsageError("a batch file cannot carry a space in a setting", "put it into a recipe: `omma cp`")
    train = shlex.quote(" ".join(["train", *words]))
    workers = found.config.train.workers
    return _TEMPLATE.format(name=chosen, nodes=nodes, gpus=gpus, cpus=workers + 2, hours=hours, train=train)
