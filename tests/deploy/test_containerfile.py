"""Promises: the image runs as nobody in particular, has no secret and no shell in it, can be asked how it is, and
stops by the signal that drains. It is built and started where there is a builder."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import NamedTuple

import pytest

from support.collection import COLLECTION
from support.source_tree import ROOT

FILE = COLLECTION / "container" / "Containerfile"
SECRET = re.compile(r"secret|password|token|key", re.IGNORECASE)


class Line(NamedTuple):
    """An instruction and its words."""

    verb: str
    rest: str


def lines() -> list[Line]:
    text = re.sub(r"^#.*\n", "", FILE.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    return [Line(*line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def last_stage() -> list[Line]:
    found = lines()
    begin = max(number for number, line in enumerate(found) if line.verb == "FROM")
    return found[begin:]


def test_it_is_built_in_two_stages_and_brings_only_the_result() -> None:
    assert [line.verb for line in lines()].count("FROM") == 2
    (copied,) = [line.rest for line in last_stage() if line.verb == "COPY"]
    assert copied == "--from=build /opt/leafdb /opt/leafdb"


def test_it_runs_as_a_user_of_a_fixed_number() -> None:
    verbs = [line.verb for line in last_stage()]
    (user,) = [line.rest for line in last_stage() if line.verb == "USER"]
    assert user == "10001:10001"
    assert verbs.index("USER") < verbs.index("ENTRYPOINT")
    assert "RUN" not in verbs[verbs.index("USER") :]


def test_no_shell_runs_in_it_or_while_it_is_built() -> None:
    for line in lines():
        if line.verb in ("RUN", "CMD", "ENTRYPOINT"):
            words = json.loads(line.rest)
            assert not {"sh", "bash", "-c"} & set(words), line


def test_no_secret_is_in_it() -> None:
    for line in lines():
        if line.verb in ("ENV", "ARG", "COPY", "ADD"):
            assert not SECRET.search(line.rest), line


def test_it_can_be_asked_how_it_is() -> None:
    (check,) = [line.rest for line in last_stage() if line.verb == "HEALTHCHECK"]
    words = json.loads(check.partition("CMD ")[2])
    assert words[:2] == ["python", "-c"]
    compile(words[2], "HEALTHCHECK", "exec")
    assert "/livez" in words[2], "never by what depends on other nodes"


def test_it_stops_by_the_signal_that_drains() -> None:
    said = {line.verb: line.rest for line in last_stage()}
    assert said["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(said["ENTRYPOINT"]) == ["leafdbd"]
    assert json.loads(said["VOLUME"]) == ["/var/lib/leafdb"]
    assert "LEAFDB__NODE__DATA_DIR=/var/lib/leafdb" in said["ENV"]


def test_what_it_copies_is_there() -> None:
    for line in lines():
        if line.verb == "COPY" and not line.rest.startswith("--from"):
            for word in line.rest.split()[:-1]:
                assert (ROOT / word).exists(), word


def test_it_builds() -> None:
    builder = next(filter(None, map(shutil.which, ("podman", "buildah", "docker"))), None)
    if builder is None:
        pytest.skip("there is no podman, buildah or docker here to build the image with")
    (base,) = [line.rest.partition("=")[2] for line in lines() if line.verb == "ARG"]
    asked = subprocess.run([builder, "pull", base], capture_output=True, timeout=120, check=False)
    if asked.returncode != 0:
        pytest.skip(f"{builder} cannot get {base} here: {asked.stderr.decode()[-200:]}")
    built = subprocess.run(
        [builder, "build", "--file", str(FILE), "--tag", "leafdb-test", "."],
        cwd=ROOT, capture_output=True, timeout=280, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr.decode()[-2000:]
