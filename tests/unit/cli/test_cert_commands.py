"""Promises of `leafdb cert`: what it makes a node believes, keys are their owner's, nothing is overwritten, a token is
good once and pins the CA."""

from __future__ import annotations

import contextlib
import socket
import ssl
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from leafdb.config import Address
from leafdb.errors import ConfigError
from leafdb.transport.tls_contexts import TlsFiles, load, rehearse
from leafdb_cli import authority, cert_join
from leafdb_cli.authority import Authority, Subject
from leafdb_cli.cert_join import Token, parse_token
from leafdb_cli.exits import Quit
from support.stand_in import Run

HOST = "127.0.0.1"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    directory = tmp_path / "ca"
    authority.found(directory, "shop")
    return directory


def files(ca: Path, stem: Path) -> TlsFiles:
    return TlsFiles(str(ca / "ca.crt"), f"{stem}.crt", f"{stem}.key")


def test_from_nothing_to_a_node_s_certificate(run: Run, tmp_path: Path) -> None:
    ca = tmp_path / "ca"
    made = run("cert", "init", str(ca), "--name", "shop", "-o", "json")
    (item,) = made.document["items"]
    assert (made.code, item["kind"], item["days_left"]) == (0, "ca", 3_649)
    assert item["name"].startswith("leafdb CA of shop ")
    assert "keep" in made.err
    assert (mode(ca / "ca.key"), mode(ca / "ca.crt")) == (0o600, 0o644)

    issued = run("cert", "issue", "n1", "--host", HOST, "--host", "db1.example.org", "--ca", str(ca), "-o", "json")
    (item,) = issued.document["items"]
    assert (item["kind"], item["name"], item["hosts"]) == ("node", "n1", ["127.0.0.1", "db1.example.org"])
    assert mode(ca / "n1.key") == 0o600
    for host in (HOST, "db1.example.org"):
        load(files(ca, ca / "n1"), host)

    client = run("cert", "issue", "alice", "--client", "--ca", str(ca), "--out", str(tmp_path / "out"), "-o", "json")
    (item,) = client.document["items"]
    assert (item["kind"], item["hosts"]) == ("client", [])
    with pytest.raises(ConfigError, match="another use"):
        load(files(ca, tmp_path / "out" / "alice"), HOST)

    shown = run("cert", "show", str(ca / "n1.crt"), str(ca / "ca.crt"))
    assert "db1.example.org" in shown.out
    assert "leafdb CA of shop" in shown.out


def test_nothing_is_overwritten(run: Run, ca: Path) -> None:
    again = run("cert", "init", str(ca))
    assert again.code == 1
    assert "cert rotate --authority" in again.err
    assert run("cert", "issue", "n1", "--host", HOST, "--ca", str(ca)).code == 0
    kept = (ca / "n1.key").read_bytes()
    again = run("cert", "issue", "n1", "--host", HOST, "--ca", str(ca))
    assert again.code == 1
    assert f"cert rotate {ca / 'n1.crt'}" in again.err
    assert (ca / "n1.key").read_bytes() == kept


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("n1",), "give --host"),
        (("n1", "--client", "--host", HOST), "nobody dials a client"),
        (("N1", "--host", HOST), "is not a name"),
        (("n1", "--host", "http://a"), "is not a host"),
        (("n1", "--host", "10.0.0.1:7412"), "is not a host"),
    ],
)
def test_what_makes_no_sense_is_refused(run: Run, ca: Path, words: tuple[str, ...], said: str) -> None:
    ended = run("cert", "issue", *words, "--ca", str(ca))
    assert ended.code == 1
    assert said in ended.err
    assert not (ca / "n1.key").exists()


def test_no_ca_no_certificate(run: Run, tmp_path: Path, ca: Path) -> None:
    assert "ca.crt cannot be read" in run("cert", "issue", "n1", "--host", HOST, "--ca", str(tmp_path)).err
    (ca / "ca.key").write_text("junk")
    assert "is not a key" in run("cert", "issue", "n1", "--host", HOST, "--ca", str(ca)).err
    junk = tmp_path / "junk"
    junk.write_text("junk")
    assert run("cert", "show", str(junk)).code == 1


def test_nothing_outlasts_the_ca(tmp_path: Path) -> None:
    authority.found(tmp_path, "short", days=10)
    certificate = Authority.load(tmp_path).equip(Subject("n1", (HOST,)), tmp_path / "n1", days=397)
    assert certificate.not_valid_after_utc == authority.certificates_in(tmp_path / "ca.crt")[0].not_valid_after_utc


def test_rotation_keeps_the_name_and_the_hosts_and_changes_the_key(run: Run, ca: Path) -> None:
    run("cert", "issue", "n.1", "--host", HOST, "--host", "::1", "--ca", str(ca))
    before = authority.certificates_in(ca / "n.1.crt")[0]
    key = (ca / "n.1.key").read_bytes()
    ended = run("cert", "rotate", str(ca / "n.1.crt"), "--ca", str(ca), "-o", "json")
    (item,) = ended.document["items"]
    assert (item["name"], item["hosts"], item["kind"]) == ("n.1", [HOST, "::1"], "node")
    assert item["fingerprint"] != authority.fingerprint(before)
    assert (ca / "n.1.key").read_bytes() != key
    load(files(ca, ca / "n.1"), HOST)
    assert run("cert", "rotate", str(ca / "ca.crt"), "--ca", str(ca)).code == 1
    assert run("cert", "rotate").code == 2
    assert run("cert", "rotate", str(ca / "n.1.crt"), "--finish", "--ca", str(ca)).code == 2


def test_only_what_this_ca_issued_is_issued_anew(run: Run, ca: Path, tmp_path: Path) -> None:
    """Files come from nodes; whoever has broken into one could hand in a certificate with other names."""
    theirs = tmp_path / "theirs"
    authority.found(theirs, "shop")
    assert run("cert", "issue", "n9", "--host", "10.0.0.1", "--ca", str(theirs)).code == 0
    before = (theirs / "n9.crt").read_bytes()
    ended = run("cert", "rotate", str(theirs / "n9.crt"), "--ca", str(ca))
    assert ended.code == 1
    assert "not from this CA" in ended.err
    assert (theirs / "n9.crt").read_bytes() == before


@pytest.mark.parametrize("name", ["ca.key", "secret"])
def test_secrets_that_others_can_read_are_refused(run: Run, ca: Path, name: str) -> None:
    secret = ca / "secret"
    secret.write_bytes(b"s" * 32)
    secret.chmod(0o600)
    (ca / name).chmod(0o640)
    ended = run("cert", "invite", "n4", "--host", HOST, "--ca", str(ca), "--secret-file", str(secret))
    assert ended.code == 1
    assert f"chmod 600 {ca / name}" in ended.err


def test_a_token_may_come_from_standard_input(run: Run, tmp_path: Path, ca: Path) -> None:
    """What stands on a command line can be read by everybody on the machine."""
    invitation = Invitation(ca)
    ended = run("cert", "join", "-", "--out", str(tmp_path / "out"), typed=f"{invitation.token}\n")
    assert ended.code == 0, ended.err
    assert invitation.ended() is None


def test_one_ca_follows_another_and_at_every_step_all_believe_each_other(run: Run, ca: Path, tmp_path: Path) -> None:
    """Old and new certificate, old and new ca.crt: whoever has taken a step believes whoever has not yet."""
    signer = Authority.load(ca)
    signer.equip(Subject("old", (HOST,)), ca / "old")
    steps = [tmp_path / f"ca-{number}.crt" for number in range(3)]
    steps[0].write_bytes((ca / "ca.crt").read_bytes())

    begun = run("cert", "rotate", "--authority", "--ca", str(ca))
    assert begun.code == 0
    assert "--authority --finish" in begun.err
    steps[1].write_bytes((ca / "ca.crt").read_bytes())
    assert run("cert", "rotate", "--authority", "--ca", str(ca)).code == 1, "one at a time"
    run("cert", "issue", "new", "--host", HOST, "--ca", str(ca))
    assert run("cert", "rotate", "--authority", "--finish", "--ca", str(ca)).code == 0
    steps[2].write_bytes((ca / "ca.crt").read_bytes())
    assert run("cert", "rotate", "--authority", "--finish", "--ca", str(ca)).code == 1

    def node(trusts: Path, name: str) -> Any:
        return load(TlsFiles(str(trusts), str(ca / f"{name}.crt"), str(ca / f"{name}.key")), HOST)

    before, early, late, after = (
        node(steps[0], "old"), node(steps[1], "old"), node(steps[1], "new"), node(steps[2], "new"),
    )  # fmt: skip
    for here, there in ((before, early), (early, late), (late, after)):
        rehearse(here.to_peers, there.from_peers, HOST)
        rehearse(there.to_peers, here.from_peers, HOST)
    with pytest.raises(ConfigError, match="not from a CA"):
        node(steps[2], "old")


# -- joining


class Invitation:
    """`cert invite` in a thread; `token` once it waits."""

    def __init__(self, ca: Path, *, secret: bytes = b"", name: str = "n4", timeout_s: float = 30.0) -> None:
        self.notes: list[str] = []
        self.error: BaseException | None = None
        self._said = threading.Event()
        self._token = ""
        self._thread = threading.Thread(target=self._run, args=(ca, secret, name, timeout_s), daemon=True)
        self._thread.start()

    def _run(self, ca: Path, secret: bytes, name: str, timeout_s: float) -> None:
        try:
            cert_join.invite(
                Authority.load(ca), Subject(name, (HOST,)), address="", listen=f"{HOST}:0", secret=secret, days=30,
                timeout_s=timeout_s, say=self._say, note=self.notes.append,
            )  # fmt: skip
        except BaseException as error:
            self.error = error
            self._said.set()

    def _say(self, token: str) -> None:
        self._token = token
        self._said.set()

    @property
    def token(self) -> str:
        assert self._said.wait(30.0)
        assert self.error is None, self.error
        return self._token

    def ended(self) -> BaseException | None:
        self._thread.join(30.0)
        assert not self._thread.is_alive()
        return self.error


def test_a_host_joins_with_a_token_and_its_key_stays_its_own(run: Run, ca: Path, tmp_path: Path) -> None:
    invitation = Invitation(ca, secret=b"the secret of the cluster\n")
    out = tmp_path / "etc"
    ended = run("cert", "join", invitation.token, "--out", str(out), "-o", "json")
    assert ended.code == 0, ended.err
    assert invitation.ended() is None
    assert [item["kind"] for item in ended.document["items"]] == ["node", "ca"]
    assert ended.document["items"][0]["name"] == "n4"
    load(TlsFiles(str(out / "ca.crt"), str(out / "node.crt"), str(out / "node.key")), HOST)
    assert (out / "secret").read_bytes() == b"the secret of the cluster\n"
    assert (mode(out / "node.key"), mode(out / "secret")) == (0o600, 0o600)
    # Once is once, and what is there is not overwritten.
    again = run("cert", "join", invitation.token, "--out", str(tmp_path / "other"), "--timeout", "2s")
    assert again.code == 5
    assert not (tmp_path / "other").exists()
    assert "is there already" in run("cert", "join", invitation.token, "--out", str(out)).err


def test_who_sits_in_between_learns_nothing(ca: Path, tmp_path: Path) -> None:
    """The address leads to another CA: nothing is sent, and nothing written."""
    authority.found(tmp_path / "theirs", "shop")
    trap = Invitation(tmp_path / "theirs")
    wanted = Invitation(ca)
    token = parse_token(wanted.token)
    forged = Token(parse_token(trap.token).address, token.fingerprint, token.secret)
    with pytest.raises(Quit) as caught:
        cert_join.join(str(forged), tmp_path / "out", timeout_s=10.0)
    assert caught.value.code == 6
    assert "nothing was sent" in caught.value.message
    assert not (tmp_path / "out").exists()
    cert_join.join(wanted.token, tmp_path / "out", timeout_s=10.0)
    assert wanted.ended() is None


def test_wrong_secrets_neither_open_the_door_nor_close_it(ca: Path, tmp_path: Path) -> None:
    """Nobody guesses 32 random bytes, so whoever tries must not be able to end it for the host that was invited."""
    invitation = Invitation(ca)
    token = parse_token(invitation.token)
    wrong = str(Token(token.address, token.fingerprint, bytes(32)))
    for _ in range(8):
        with pytest.raises(Quit):
            cert_join.join(wrong, tmp_path / "out", timeout_s=10.0)
    assert invitation.notes == ["somebody came with a wrong secret"] * 8
    cert_join.join(invitation.token, tmp_path / "out", timeout_s=20.0)
    assert invitation.ended() is None


def under_tls(address: Address) -> ssl.SSLSocket:
    """As whoever does not ask who answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection(address))


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 8, b"{}", b"[" * 50_000, b'{"secret":' * 9_000, b'{"secret": 5}',
        b'{"secret": "zz"}', b"\xff", b'{"secret": "00", "request": 5}',
    ],
)  # fmt: skip
def test_a_stranger_at_the_door_does_not_end_it(ca: Path, tmp_path: Path, words: bytes) -> None:
    invitation = Invitation(ca)
    address = parse_token(invitation.token).address
    with socket.create_connection(address) as stranger:
        stranger.sendall(words)
    with under_tls(address) as line, contextlib.suppress(OSError):
        line.sendall(len(words).to_bytes(4, "big") + words)
        assert not line.recv(1), "it is shown the door"
    cert_join.join(invitation.token, tmp_path / "out", timeout_s=20.0)
    assert invitation.ended() is None


def test_a_stranger_who_speaks_for_ever_does_not_keep_others_out(
    ca: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of a visitor is that of the whole visit, however little comes at a time."""
    monkeypatch.setattr(cert_join, "VISIT_S", 0.5)
    invitation = Invitation(ca)
    over = threading.Event()

    def speak(line: ssl.SSLSocket) -> None:
        with contextlib.suppress(OSError):
            line.sendall((60_000).to_bytes(4, "big"))
            while not over.wait(0.05):
                line.sendall(b" ")

    with under_tls(parse_token(invitation.token).address) as line:
        speaker = threading.Thread(target=speak, args=(line,), daemon=True)
        speaker.start()
        try:
            cert_join.join(invitation.token, tmp_path / "out", timeout_s=20.0)
        finally:
            over.set()
            speaker.join(20.0)
    assert invitation.ended() is None


def test_nobody_comes(ca: Path) -> None:
    error = Invitation(ca, timeout_s=0.05).ended()
    assert isinstance(error, Quit)
    assert error.code == 5


def test_a_token_reads_back_and_nonsense_does_not(ca: Path, run: Run) -> None:
    token = Token(authority_address := parse_token(Invitation(ca).token).address, bytes(range(32)), bytes(32))
    assert parse_token(f"  {token}\n") == token
    assert token.address == authority_address
    for wrong in ("", "leafdb-join-", str(token)[:-20], str(token) + "!", "leafdb-join-AA"):
        assert run("cert", "join", wrong or " ").code == 1
    invited = run("cert", "invite", "n4", "--host", HOST, "--ca", str(ca))
    assert invited.code == 1
    assert "--address" in invited.err
