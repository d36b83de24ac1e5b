"""Seeing what goes on: numbers that workers count, and the process that shows them to Prometheus, browsers and
collectors of traces."""
