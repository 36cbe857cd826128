"""What Lightning asks about the processes of a job, answered by us in the place of SLURM, torchrun or itself."""

from __future__ import annotations

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment

from kd_lightning.apps.processes.team import Team


class TeamEnvironment(ClusterEnvironment):
    """The processes of a job that trains together; their group is there before Lightning asks for it.

    Args:
        team: The processes.
    """

    def __init__(self, team: Team) -> None:
        super().__init__()
        self.team = team

    @property
    def creates_processes_externally(self) -> bool:
        """Return that Lightning starts none: they are here."""
        return True

    @property
    def main_address(self) -> str:
        """Return nothing to connect to: the group is joined already."""
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        """Return nothing to connect to: the group is joined already."""
        return 0

    @staticmethod
    def detect() -> bool:
        """Return that it is never found, but given."""
        return False

    def world_size(self) -> int:
        """Return the number of processes."""
        return self.team.size

    def set_world_size(self, size: int) -> None:
        """Do nothing: the number is known."""

    def global_rank(self) -> int:
        """Return the number of this process."""
        return self.team.seat.rank

    def set_global_rank(self, rank: int) -> None:
        """Do nothing: the number is known."""

    def local_rank(self) -> int:
        """Return the number of this process on its machine."""
        return self.team.seat.local_rank

    def node_rank(self) -> int:
        """Return the number of the machine."""
        return self.team.seat.node
