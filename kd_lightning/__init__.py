"""Knowledge distillation for language understanding: small models taught by big ones.

The house, from the ground up (each floor imports only from the floors below):

1. ``tasks``, ``batch``, ``annealing``, ``errors``: what a task is, what a batch is, how much gold, how errors read.
2. ``losses``, ``encoders``, ``heads``, ``optim``: the parts of a model and of its training.
3. ``systems`` | ``data``: the published methods, one file each | rows to tokens to batches, soft targets by example id.
4. ``apps``: the commands ``kd-train``, ``kd-predict``, ``kd-evaluate``, ``kd-distill``; only they know Hydra.
"""

__version__ = "0.1.0"
