"""SCRAM-SHA-256: the RFC's own example, verifiers that prove and quote nothing, fakes that cannot be told apart."""

from __future__ import annotations

import base64
import hashlib

import pytest

from leafdb.limits import PASSWORD_BYTES_MAX, SCRAM_ITERATIONS, SCRAM_ITERATIONS_MIN
from leafdb.model.scram import (
    Verifier,
    fake_verifier,
    keys_of,
    prepared,
    proof_of,
    root_password,
    signed,
    verifier_of,
)

SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
AUTH_MESSAGE = (
    b"n=user,r=rOprNGfwEbeRWgbNEkqO,"
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
)


def test_the_example_of_rfc_7677() -> None:
    keys = keys_of(prepared("pencil"), SALT, 4096)
    proof = proof_of(keys, AUTH_MESSAGE)
    assert base64.b64encode(proof) == b"dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    verifier = verifier_of(prepared("pencil"), SALT, 4096)
    assert verifier.proves(proof, AUTH_MESSAGE)
    signature = verifier.signature(AUTH_MESSAGE)
    assert base64.b64encode(signature) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    assert signed(keys, AUTH_MESSAGE, signature)


def test_nothing_else_proves_it() -> None:
    verifier = verifier_of(prepared("pencil"), SALT, 4096)
    other = proof_of(keys_of(prepared("pencils"), SALT, 4096), AUTH_MESSAGE)
    right = proof_of(keys_of(prepared("pencil"), SALT, 4096), AUTH_MESSAGE)
    assert not verifier.proves(other, AUTH_MESSAGE)
    assert not verifier.proves(right, AUTH_MESSAGE + b"x")
    assert not verifier.proves(b"", AUTH_MESSAGE)
    assert not verifier.proves(right + b"\x00", AUTH_MESSAGE)
    assert not verifier.proves(verifier.stored_key, AUTH_MESSAGE), "who steals what is kept cannot log in with it"
    assert not verifier.proves(verifier.server_key, AUTH_MESSAGE)


def test_what_is_kept_is_neither_the_password_nor_the_key_that_proves_it() -> None:
    keys = keys_of(prepared("pencil"), SALT, 4096)
    verifier = verifier_of(prepared("pencil"), SALT, 4096)
    assert verifier.stored_key == hashlib.sha256(keys.client_key).digest()
    kept = b"".join((verifier.salt, verifier.stored_key, verifier.server_key))
    assert b"pencil" not in kept
    assert keys.client_key not in kept


def test_a_verifier_shows_none_of_its_keys() -> None:
    verifier = verifier_of(prepared("pencil"), SALT, SCRAM_ITERATIONS_MIN)
    for shown in (repr(verifier), str(verifier), f"{[verifier]}"):
        assert shown.strip("[]") == f"Verifier(iterations={SCRAM_ITERATIONS_MIN})"


@pytest.mark.parametrize(
    "changes",
    [
        {"iterations": SCRAM_ITERATIONS_MIN - 1},
        {"iterations": 1 << 40},
        {"salt": b"short"},
        {"stored_key": b"x" * 31},
        {"server_key": "text"},
    ],
)
def test_a_weak_or_malformed_verifier_is_refused_without_being_quoted(changes: dict[str, object]) -> None:
    sound = verifier_of(prepared("pencil"), SALT, SCRAM_ITERATIONS_MIN).to_wire()
    assert Verifier.from_wire(sound).to_wire() == sound
    with pytest.raises(ValueError, match=next(iter(changes))) as caught:
        Verifier.from_wire({**sound, **changes})
    for secret in ("stored_key", "server_key"):
        assert sound[secret].hex() not in str(caught.value)


def test_one_password_typed_in_two_ways_is_one() -> None:
    assert prepared("caf\u00e9") == prepared("cafe\u0301")
    assert prepared("a\u00a0b") == prepared("a b") == prepared("a\u3000b")
    assert prepared("\uff41") == b"a"
    assert prepared("Pencil") != prepared("pencil")


@pytest.mark.parametrize("password", ["", "tab\there", "bell\x07", "\ud800", "x" * (PASSWORD_BYTES_MAX + 1)])
def test_what_is_no_password_is_refused_without_being_quoted(password: str) -> None:
    with pytest.raises(ValueError, match="a password has") as caught:
        prepared(password)
    assert not password or password not in str(caught.value)


def test_nobody_has_the_same_salt_everywhere_and_a_password_nobody_knows() -> None:
    fake = fake_verifier(b"secret of the cluster", "mallory", SCRAM_ITERATIONS)
    assert fake == fake_verifier(b"secret of the cluster", "mallory", SCRAM_ITERATIONS)
    assert fake.salt != fake_verifier(b"secret of the cluster", "malory", SCRAM_ITERATIONS).salt
    assert fake.salt != fake_verifier(b"another cluster's", "mallory", SCRAM_ITERATIONS).salt
    assert len(fake.salt) == 16
    assert not fake.proves(proof_of(keys_of(b"", fake.salt, 1), b"m"), b"m")


def test_the_clusters_secret_is_not_its_password() -> None:
    secret = b"0123456789abcdef"
    assert secret.hex().encode() not in root_password(secret)
    assert secret not in root_password(secret)
    assert root_password(secret) != root_password(b"0123456789abcdeg")
