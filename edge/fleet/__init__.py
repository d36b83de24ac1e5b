"""What several hosts share through Redis or Valkey: ticket keys, and which early data was taken (docs/fleet.md)."""
