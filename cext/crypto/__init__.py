"""Primitives over libcrypto: AEADs, hashes and HKDF, key exchange, signatures, certificates' keys."""
