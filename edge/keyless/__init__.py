"""Signatures by keys on another host: gokeyless's protocol, its client and its server, over our own TLS.

`wire` knows the packets, `stream` carries them over TLS in asyncio, `client` asks key servers and `server` is one.
"""
