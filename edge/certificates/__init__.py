"""Certificates and all that comes with them: reading, renewal, OCSP, timestamps, delegation, expiry."""
