"""The shipped configurations (installed as kd_lightning.conf); Hydra needs this file."""
