"""Bytes to values and back, with no domain: checksums, varints, hardened CBOR, compression. Pure."""
