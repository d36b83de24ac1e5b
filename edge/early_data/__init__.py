"""0-RTT data: its settings, and the registers of which was taken (docs/early-data.md)."""
