"""Joins tls, http and net: one client connection, one request, one upstream connection at a time."""
