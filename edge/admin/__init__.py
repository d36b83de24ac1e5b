"""The admin socket: what is asked and told there, by the master and, asked by it, by workers."""
