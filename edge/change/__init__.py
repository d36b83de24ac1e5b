"""How what runs is changed without a connection lost: another configuration, other processes, another version."""
