"""The commands ``kd-train``, ``kd-predict``, ``kd-evaluate`` and ``kd-distill``: the only place that knows Hydra."""
