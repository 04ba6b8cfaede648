"""A real SLURM on this machine: one controller, two nodes, no mock. Needs root and Debian's slurm-wlm and munge."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "sinfo")
CONF = Path("/etc/slurm/slurm.conf")  # the plugin strips SLURM_CONF inside a job, so the standard place it is


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def configuration(folder: Path) -> str:
    host = socket.gethostname().split(".")[0]
    control, *nodes = free_ports(3)
    lines = [
        "ClusterName=test", f"SlurmctldHost={host}(127.0.0.1)", f"SlurmctldPort={control}", "SlurmUser=root",
        f"StateSaveLocation={folder}/state", f"SlurmdSpoolDir={folder}/spool/%n", f"SlurmctldPidFile={folder}/ctld.pid",
        f"SlurmdPidFile={folder}/slurmd-%n.pid", f"SlurmctldLogFile={folder}/ctld.log",
        f"SlurmdLogFile={folder}/%n.log",
        "AuthType=auth/munge", "AuthInfo=cred_expire=15", "ProctrackType=proctrack/linuxproc", "TaskPlugin=task/none",
        "SelectType=select/cons_tres", "SelectTypeParameters=CR_Core", "SlurmdParameters=config_overrides",
        "MinJobAge=600", "ReturnToService=2", "JobRequeue=1", "MpiDefault=none", "GresTypes=gpu",
    ]  # fmt: skip
    for name, port in zip(("n1", "n2"), nodes, strict=True):
        where = f"NodeHostname={host} NodeAddr=127.0.0.1 Port={port}"
        lines.append(f"NodeName={name} {where} CPUs=8 RealMemory=500000 Gres=gpu:1 State=UNKNOWN")
    lines += [
        "PartitionName=cpu Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP",
        "PartitionName=gpu Nodes=n1,n2 State=UP",
    ]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """Start the daemons, wait until both nodes are idle, and stop them afterwards."""
    absent = [
        program for program in PROGRAMS if shutil.which(program) is None and not Path("/usr/sbin", program).exists()
    ]
    if absent or os.geteuid() != 0:
        pytest.skip(
            f"a real SLURM needs root and {', '.join(absent) or 'nothing more'}: apt-get install slurm-wlm munge"
        )
    if CONF.exists() and "ClusterName=test" not in CONF.read_text():
        pytest.skip(f"{CONF} belongs to another cluster")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool/n1", "spool/n2", "dev"):
        (folder / name).mkdir(parents=True)
    for number in range(2):
        os.mknod(folder / "dev" / f"nvidia{number}", 0o20666, os.makedev(1, 3))
    gres = "".join(f"NodeName={node} Name=gpu File={folder}/dev/nvidia{k}\n" for k, node in enumerate(("n1", "n2")))
    CONF.parent.mkdir(exist_ok=True)
    CONF.write_text(configuration(folder))
    (CONF.parent / "gres.conf").write_text(gres)
    if subprocess.run(["munge", "-n"], capture_output=True).returncode:
        Path("/run/munge").mkdir(exist_ok=True)
        shutil.chown("/run/munge", "munge", "munge")
        subprocess.run(["runuser", "-u", "munge", "--", "/usr/sbin/munged"], check=True)
    daemons = [subprocess.Popen(["/usr/sbin/slurmctld", "-D"], stderr=subprocess.DEVNULL)]
    daemons += [subprocess.Popen(["/usr/sbin/slurmd", "-D", "-N", n], stderr=subprocess.DEVNULL) for n in ("n1", "n2")]
    try:
        _wait_until_idle(folder)
        yield folder
    finally:
        subprocess.run(["scancel", "--user", "root"], capture_output=True)
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(timeout=30)
        CONF.unlink()
        (CONF.parent / "gres.conf").unlink()


def _wait_until_idle(folder: Path, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        states = subprocess.run(
            ["sinfo", "-h", "-N", "-p", "cpu", "-o", "%T"], capture_output=True, text=True
        ).stdout.split()
        if states == ["idle", "idle"]:
            return
        time.sleep(0.3)
    raise AssertionError(f"SLURM did not come up: {states}\n{(folder / 'ctld.log').read_text()[-2000:]}")
