"""The HTTP codec, sans-I/O: heads, bodies, framing rules. No socket is touched here."""
