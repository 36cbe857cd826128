"""Which of a job's processes this one is, by the environment that it was started in."""

import pytest

from kd_lightning.apps.processes.seat import Seat, own_seat

STEP = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}
ELASTIC = {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "GROUP_RANK": "1"}


@pytest.mark.parametrize(
    ("environment", "seat"),
    [
        ({}, Seat()),
        ({"RANK": "1", "WORLD_SIZE": "2"}, Seat()),  # of another tool's
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7"}, Seat()),  # a script of sbatch
        ({**STEP, "SLURM_STEP_NUM_TASKS": "1"}, Seat()),
        ({**STEP, "SLURM_JOB_NAME": "bash"}, Seat()),
        ({**STEP, "SLURM_JOB_NAME": "train"}, Seat(3, 4, 1, 1, "slurm")),
        (ELASTIC, Seat(3, 4, 1, 1, "torchrun")),
        (
            {"KD_LIGHTNING_ADDRESS": "127.0.0.1:1", "KD_LIGHTNING_RANK": "1", "KD_LIGHTNING_SIZE": "2"},
            Seat(1, 2, 1, 0, "us"),
        ),
    ],
)
def test_a_seat(environment, seat):
    assert own_seat(environment) == seat


def test_the_first_leads():
    assert Seat().leads
    assert not Seat(1, 2).leads


def test_who_started_it_last_counts():
    """Processes that we start within a job of SLURM are ours."""
    ours = {"KD_LIGHTNING_ADDRESS": "127.0.0.1:1", "KD_LIGHTNING_RANK": "1", "KD_LIGHTNING_SIZE": "2"}
    assert own_seat({**STEP, **ELASTIC, **ours}).started_by == "us"
