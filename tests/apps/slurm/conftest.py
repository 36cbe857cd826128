"""A SLURM of two nodes, this machine twice, for as long as its tests run; it listens on the loopback alone.

Partition ``gpu`` has both, with two pretended GPUs each; ``main`` and ``urgent`` have the first.

Needs root and the Debian packages slurmctld, slurmd, slurm-client and munge.
"""

import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
NODES = ("first", "second")

CONF = """
ClusterName=onenode
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
SchedulerParameters=sched_interval=2,bf_interval=5,batch_sched_delay=0
MinJobAge=300
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
GresTypes=gpu
NodeName=first NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=8000 Gres=gpu:2 State=UNKNOWN
NodeName=second NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 RealMemory=8000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=first Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=60 State=UP
PartitionName=urgent Nodes=first MaxTime=INFINITE PriorityTier=9 PreemptMode=OFF State=UP
PartitionName=gpu Nodes=ALL MaxTime=INFINITE PriorityTier=1 State=UP
"""


def until(holds, seconds, what):
    """Wait until something holds; fail if it does not come."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        if time.monotonic() > end:
            pytest.fail(f"{what}: not within {seconds} seconds")
        time.sleep(0.3)
    return found


def free_ports(number):
    """Return ports that nobody has, each another, below those that the system gives to others meanwhile."""
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        while len(found) < number:
            port = random.randrange(20000, 32000)
            one = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                one.bind(("127.0.0.1", port))
                found.append(port)
        return found


def ended(pid_file):
    """Tell whether a daemon has ended; process 1 of a container may leave it behind as a zombie."""
    try:
        return not Path("/proc", pid_file.read_text().strip(), "cmdline").read_bytes()
    except OSError:
        return True


def stop(pid_file):
    if not ended(pid_file):
        os.kill(int(pid_file.read_text()), signal.SIGTERM)
        until(lambda: ended(pid_file), 20, f"end of {pid_file.stem}")


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """Return a function that runs one of SLURM's commands and returns what it says; its ``until`` waits."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        pytest.fail(f"make slurm needs root and slurmctld, slurmd, slurm-client and munge; missing: {missing}")
    root = tmp_path_factory.mktemp("slurm")
    for folder in (root, *list(root.parents)[:2]):
        folder.chmod(0o755)  # munge looks at those above its socket
    (root / "state").mkdir()
    host = socket.gethostname().partition(".")[0]
    conf = root / "slurm.conf"
    conf.write_text(CONF.format(host=host, root=root, ports=free_ports(1 + len(NODES))))
    (root / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
    key = root / "munge.key"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(128))
    environment = {**os.environ, "SLURM_CONF": str(conf)}

    def run(*command):
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    pids = [root / f"{name}.pid" for name in (*(f"slurmd-{node}" for node in NODES), "slurmctld", "munged")]
    try:
        files = {"key-file": key, "socket": root / "munge.socket", "pid-file": pids[-1]}
        files |= {"log-file": root / "munged.log", "seed-file": root / "seed"}
        run("munged", "--force", *(f"--{name}={path}" for name, path in files.items()), "--origin=127.0.0.1")
        run("slurmctld", "-f", str(conf), "-i")
        for node in NODES:
            (root / f"spool-{node}").mkdir()
            run("slurmd", "-f", str(conf), "-N", node)
        until(lambda: run("sinfo", "-h", "-N", "-p", "gpu", "-o", "%T").split() == ["idle"] * 2, 30, "two idle nodes")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(conf))
            run.until = until
            yield run
        run("scancel", "--me")
        until(lambda: not run("squeue", "-h"), 60, "the end of all jobs")
    finally:
        for pid_file in pids:
            stop(pid_file)
