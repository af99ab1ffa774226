"""A site: bare hosts, an inventory of them, whoever plays, and clients that log in as the site wants it.

    deploy = Site(bed, ansible, directory, wheels)      # TLS and accounts, from a CA in `directory`
    deploy.play("deploy", hosts=["a", "b", "c"])

Without TLS: `site.variables |= IN_THE_CLEAR`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import ssl
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Final

import yaml

import leafdb
from leafdb.client.sync_client import Client
from support.nspawn import Bed
from support.playing import Ansible, Played
from support.source_tree import ROOT
from support.traffic import Traffic

PLAY_S: Final = 1_200.0
PORT: Final = 7411
BUCKET: Final = "carts"
USER: Final = "shop"
PASSWORD: Final = "correct horse battery staple"
IN_THE_CLEAR: Final = {"node_tls": False, "node_insecure": True}
"""For a network that is trusted."""


class Site:
    """The hosts, an inventory, and who plays."""

    def __init__(self, bed: Bed, ansible: Ansible, directory: Path, wheels: Path, members: Sequence[str]) -> None:
        self.bed = bed
        self.wheels = wheels
        self.directory = directory
        self.members = list(members)
        self.sealed = True
        """Whether clients speak TLS and log in."""
        self.ca = directory / "ca"
        self._ansible = ansible
        self._inventory = directory / "hosts.yml"
        self.variables: dict[str, Any] = {
            "ansible_user": "root", "ansible_ssh_private_key_file": str(bed.key),
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_common_args": " ".join(bed.ssh_options()), "node_cluster_name": "prod",
            "node_secret": "a-secret-of-at-least-thirty-two-characters", "node_wheel_directory": str(wheels),
            "node_build_directory": str(directory / "built"), "node_ca_directory": str(self.ca),
            "node_drain_timeout_s": 10,
        }  # fmt: skip

    def address(self, name: str) -> str:
        """Where clients reach a node."""
        return f"{self.bed.hosts[name].address}:{PORT}"

    def connect(self) -> Client:
        """A client of the cluster, from this machine: it believes the CA and logs in, or does neither."""
        hosts = ",".join(map(self.address, self.members))
        if not self.sealed:
            return leafdb.connect(f"leafdb://{hosts}", timeout=20.0)
        believed = leafdb.TLS(ca_file=self.ca / "ca.crt")
        return leafdb.connect(f"leafdbs://{hosts}", timeout=20.0, tls=believed, auth=leafdb.Scram(USER, PASSWORD))

    def play(self, name: str, *arguments: str, hosts: list[str] | None = None) -> Played:
        """A playbook, on the members and whoever comes; its figures are printed."""
        self._inventory.write_text(yaml.safe_dump(self._groups(hosts or self.members)))
        begun = monotonic()
        played = self._ansible.play(
            "--inventory", str(self._inventory), f"leafdb.leafdb.{name}", *arguments, timeout_s=PLAY_S
        )
        print(f"{name} {' '.join(arguments)}: {monotonic() - begun:.0f} s, {dict(played.hosts)}")
        assert played.code == 0, played.text
        return played

    def play_under_load(self, name: str, *arguments: str, hosts: list[str] | None = None) -> Played:
        """The same while clients work: nothing of theirs fails, and everything they wrote is there afterwards."""
        with self.connect() as client, Traffic(client, BUCKET, prefix=f"{name}-{monotonic():.0f}") as traffic:
            played = self.play(name, *arguments, hosts=hosts)
        print(traffic.figures())
        with self.connect() as client:
            traffic.check(client)
        return played

    def leafdb(self, *arguments: str, on: str = "") -> str:
        """A command on a machine, at its own node, as whoever is root there gives it."""
        host = on or self.members[0]
        login = ["LEAFDB_CA_FILE=/etc/leafdb/tls/ca.crt", "LEAFDB_SECRET_FILE=/etc/leafdb/secret"]
        program = ["/opt/leafdb/current/bin/leafdb", "--node", self.address(host)]
        return self.bed.run(host, *(login if self.sealed else []), *program, *arguments)

    def admit(self) -> None:
        """The user that `connect` logs in as, and the bucket of `Traffic`."""
        if self.sealed:
            home = Path("/root/password")
            self.bed.run(self.members[0], f"umask 077 && echo '{PASSWORD}' > {home}")
            self.leafdb("user", "create", USER, "--role", "writer", "--password-file", str(home))
        self.leafdb("bucket", "create", BUCKET, "--exist-ok")

    def names(self) -> list[str]:
        """The members, as the cluster knows them."""
        listed = json.loads(self.leafdb("-o", "json", "node", "list"))["items"]
        return sorted(str(each["name"]) for each in listed if each["state"] == "alive" or each["state"] == "serving")

    def started(self, name: str) -> str:
        """When a machine's node was started last, and how often systemd did so unasked."""
        return self.bed.run(name, "systemctl", "show", "leafdb", "--property=ExecMainStartTimestampMonotonic,NRestarts")

    def release(self, name: str) -> str:
        """What a machine's node was started with."""
        return self.bed.run(name, "cat", "/run/leafdb/deployed").split()[1]

    def shown(self, name: str, port: int = PORT) -> str:
        """The fingerprint of the certificate that a node shows at a port."""
        shown = ssl.get_server_certificate((self.bed.hosts[name].address, port), timeout=20.0)
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(shown)).hexdigest()

    def _groups(self, hosts: list[str]) -> dict[str, Any]:
        addresses = {
            host: {
                "ansible_host": self.bed.hosts[host].address,
                "node_address": self.bed.hosts[host].address,
                "node_zone": f"zone-{host}",
            }
            for host in hosts
        }
        return {
            "leafdb": {"hosts": addresses},
            "leafdb_monitoring": {"hosts": {self.members[0]: None}},
            "all": {"vars": self.variables},
        }


# -- what is installed


def wheels_of_this_checkout(cache: Path, directory: Path) -> None:
    """What hosts without a package index are installed from. What leafdb depends on is kept in `cache`, by its list."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = json.dumps([project["dependencies"], project["optional-dependencies"]]).encode()
    kept = cache / f"wheels-{hashlib.sha256(wanted).hexdigest()[:12]}"
    if not kept.exists():
        part = kept.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        _build(part, f"{ROOT}[server,cli]")
        part.rename(kept)
    shutil.copytree(kept, directory, ignore=shutil.ignore_patterns("leafdb-*"))
    _build(directory, "--no-deps", str(ROOT))


def wheel_in(directory: Path) -> Path:
    """The one of leafdb."""
    (found,) = directory.glob("leafdb-*.whl")
    return found


def as_if_earlier(wheel: Path, directory: Path) -> Path:
    """One that differs from another in nothing but its digest."""
    made = directory / wheel.name
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as target:
        for each in source.infolist():
            target.writestr(each, source.read(each))
        target.comment = b"earlier"
    return made


def _build(directory: Path, *what: str) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(directory), *what]
    made = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert made.returncode == 0, made.stderr
