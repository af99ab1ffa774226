"""Promise: checksums are the published functions, so that files and placement survive a change of library."""

from __future__ import annotations

from leafdb.codec.checksum import crc32c, xxh3_64


def test_crc32c_is_the_published_function() -> None:
    # RFC 3720, appendix B.4
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(b"") == 0


def test_crc32c_of_parts_is_that_of_the_whole() -> None:
    data = bytes(range(256)) * 3
    for cut in (0, 1, 7, 300, len(data)):
        assert crc32c(data[cut:], crc32c(data[:cut])) == crc32c(data)


def test_xxh3_is_the_published_function() -> None:
    assert xxh3_64(b"") == 0x2D06800538D394C2
    assert xxh3_64(b"leafdb", 256) != xxh3_64(b"leafdb", 257)
    assert xxh3_64(b"leafdb", 256) == xxh3_64(b"leafdb", 256)
