"""The TLS engine, sans-I/O: bytes in, bytes out, events. No socket is touched here."""
