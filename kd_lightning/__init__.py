"""Knowledge distillation for language understanding: small models taught by big ones.

The house, from the ground up (each floor imports only from the floors below):

1. ``errors``; ``fields``, ``metrics``, ``treebank``: how mistakes are told, what a score is, what a word is.
2. ``tasks``, ``batch``, ``annealing``, ``progress``: what a task is, what a batch is, how much gold.
3. ``losses``, ``encoders``, ``augmentation``; ``optim``, ``heads``: the parts of a model, its texts, its training.
4. ``systems`` | ``data``, ``callbacks``, ``loggers``: the methods | from rows to batches, soft targets, logs.
5. ``apps``: the commands ``kd-train``, ``kd-predict``, ``kd-evaluate``, ``kd-distill``; only they know Hydra.
"""

__version__ = "0.1.0"
