"""Bare Debian hosts with systemd, for plays: a minimal root file system, a writable layer over it for each host, a
network namespace each, joined by a bridge, and systemd-nspawn to start them.

    hosts   a bridge BRIDGE with the address NET.254 in this machine's own network
      |-- NAME: namespace lfbed-NAME, address NET.1, NET.2, ...; sshd; systemd as process 1

Needs root, Linux with overlayfs and network namespaces, systemd-nspawn; debootstrap and a Debian mirror where the root
file system is not cached yet. Whatever it makes it takes away again: processes by the numbers it has started, mounts,
links, namespaces by their names. Nothing here is registered with a systemd of this machine, whether it has one or not.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

BRIDGE: Final = "lfbed0"
NET: Final = "10.213.97"
SUITE: Final = "bookworm"
PACKAGES: Final = (
    "systemd", "systemd-sysv", "dbus", "python3", "python3-venv", "iproute2", "openssh-server", "prometheus",
)  # fmt: skip
BOOT_S: Final = 90.0
COMMAND_S: Final = 60.0
DEBOOTSTRAP_S: Final = 900.0
MASKED: Final = (
    "systemd-firstboot.service", "systemd-resolved.service", "systemd-networkd.service", "getty.target",
    "apt-daily.timer", "apt-daily-upgrade.timer",
)  # fmt: skip
"""Fail in a container, or work for nobody."""
ASLEEP: Final = ("prometheus.service", "prometheus-node-exporter.service")
"""Started by a play, where one wants them."""


def missing() -> str:
    """Why no host can be made here; empty when all is there."""
    if os.geteuid() != 0:
        return "hosts of systemd-nspawn want root"
    for program in ("systemd-nspawn", "ip", "ssh", "ssh-keygen", "mount"):
        if shutil.which(program) is None:
            return f"there is no {program} here"
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "this kernel has no overlayfs"
    tried = subprocess.run(["ip", "netns", "add", "lfbed-probe"], capture_output=True, timeout=COMMAND_S, check=False)
    if tried.returncode != 0:
        return f"no network namespaces here: {tried.stderr.decode().strip()}"
    command("ip", "netns", "delete", "lfbed-probe")
    return ""


def command(*words: str, timeout_s: float = COMMAND_S) -> str:
    """Run one; its output. AssertionError with what it said unless it ends with 0."""
    finished = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert finished.returncode == 0, f"{' '.join(words)}: {finished.stdout}{finished.stderr}"
    return finished.stdout


def root_of(cache: Path) -> Path:
    """The root file system, from the cache or made now: half a minute to some, once."""
    root = cache / f"{SUITE}-root"
    if not (root / "usr" / "sbin" / "sshd").exists():
        part = cache / f"{SUITE}-part"
        shutil.rmtree(part, ignore_errors=True)
        part.parent.mkdir(parents=True, exist_ok=True)
        command(
            "debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(part),
            timeout_s=DEBOOTSTRAP_S,
        )  # fmt: skip
        part.rename(root)
    return root


class Host:
    """One machine."""

    def __init__(self, name: str, number: int, directory: Path) -> None:
        self.name = name
        self.address = f"{NET}.{number}"
        self.directory = directory
        self.root = directory / "root"
        self.namespace = f"lfbed-{name}"
        self.link = f"lfbed-{name}-v"
        self.process: subprocess.Popen[bytes] | None = None

    def kill(self) -> None:
        """End every process of it. Its own process 1 is killed, and with it all others: it outlives nspawn's."""
        if self.process is None or self.process.poll() is not None:
            return
        pid = self.process.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        self.process.kill()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(COMMAND_S)


class Bed:
    """Hosts, as `with`. `addresses` are theirs in the order of their names; `key` opens all of them to root."""

    def __init__(self, directory: Path, root: Path, names: Sequence[str]) -> None:
        self._root = root
        self._directory = directory
        self.key = directory / "key"
        self.hosts = {name: Host(name, number, directory / name) for number, name in enumerate(names, 1)}

    def __enter__(self) -> Bed:
        self._directory.mkdir(parents=True, exist_ok=True)
        try:
            command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key))
            command("ip", "link", "add", BRIDGE, "type", "bridge")
            command("ip", "address", "add", f"{NET}.254/24", "dev", BRIDGE)
            command("ip", "link", "set", BRIDGE, "up")
            for host in self.hosts.values():
                self._make(host)
            self.boot(*self.hosts)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def boot(self, *names: str) -> None:
        """Start machines; they can be logged into on return."""
        for name in names:
            self._start(self.hosts[name])
        for name in names:
            self._await(self.hosts[name])

    def cut_power(self, name: str) -> None:
        """The machine is off, from one moment to the next."""
        host = self.hosts[name]
        assert host.process is not None
        host.kill()

    def run(self, name: str, *words: str, timeout_s: float = COMMAND_S) -> str:
        """A command on a machine, as root."""
        return command("ssh", *self.ssh_options(), f"root@{self.hosts[name].address}", *words, timeout_s=timeout_s)

    def ssh_options(self) -> list[str]:
        """To log in without being asked anything."""
        return [
            "-i", str(self.key), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            "-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5",
        ]  # fmt: skip

    def close(self) -> None:
        """Take everything away again."""
        for host in self.hosts.values():
            host.kill()
        for host in self.hosts.values():
            for words in (
                ("umount", "--lazy", str(host.root)),
                ("ip", "link", "delete", host.link),
                ("ip", "netns", "delete", host.namespace),
            ):
                subprocess.run(words, capture_output=True, timeout=COMMAND_S, check=False)
        subprocess.run(["ip", "link", "delete", BRIDGE], capture_output=True, timeout=COMMAND_S, check=False)
        for host in self.hosts.values():
            if not host.root.is_mount():
                shutil.rmtree(host.directory, ignore_errors=True)

    def console(self, name: str, lines: int = 60) -> str:
        """What a machine has said on its console, the end of it."""
        path = self.hosts[name].directory / "console"
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    # -- one machine

    def _make(self, host: Host) -> None:
        upper, work = host.directory / "upper", host.directory / "work"
        for path in (host.root, upper, work):
            path.mkdir(parents=True)
        layers = f"lowerdir={self._root},upperdir={upper},workdir={work}"
        command("mount", "-t", "overlay", host.namespace, "-o", layers, str(host.root))
        (host.root / "etc" / "machine-id").write_text("")
        (host.root / "etc" / "hostname").write_text(f"{host.name}\n")
        keys = host.root / "root" / ".ssh"
        keys.mkdir(mode=0o700, exist_ok=True)
        (keys / "authorized_keys").write_text(Path(f"{self.key}.pub").read_text())
        for unit in MASKED:
            link = host.root / "etc" / "systemd" / "system" / unit
            link.unlink(missing_ok=True)
            link.symlink_to("/dev/null")
        for unit in ASLEEP:
            (host.root / "etc" / "systemd" / "system" / "multi-user.target.wants" / unit).unlink(missing_ok=True)
        self._connect(host)

    def _connect(self, host: Host) -> None:
        inside = ("ip", "-n", host.namespace)
        command("ip", "netns", "add", host.namespace)
        command("ip", "link", "add", host.link, "type", "veth", "peer", "name", "host0", "netns", host.namespace)
        command("ip", "link", "set", host.link, "master", BRIDGE, "up")
        command(*inside, "address", "add", f"{host.address}/24", "dev", "host0")
        command(*inside, "link", "set", "host0", "up")
        command(*inside, "link", "set", "lo", "up")

    def _start(self, host: Host) -> None:
        with (host.directory / "console").open("ab") as console:
            host.process = subprocess.Popen(
                [
                    "systemd-nspawn", "--quiet", "--boot", f"--directory={host.root}", f"--machine=lfbed-{host.name}",
                    "--register=no", "--keep-unit", "--console=pipe", "--link-journal=no",
                    f"--network-namespace-path=/run/netns/{host.namespace}",
                ],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True,
            )  # fmt: skip

    def _await(self, host: Host) -> None:
        deadline = time.monotonic() + BOOT_S
        while True:
            assert host.process is not None
            assert host.process.poll() is None, f"{host.name} has ended\n{self.console(host.name)}"
            with suppress(AssertionError, subprocess.TimeoutExpired):
                self.run(host.name, "true")
                return
            assert time.monotonic() < deadline, f"{host.name} did not come up\n{self.console(host.name)}"
            time.sleep(0.5)
