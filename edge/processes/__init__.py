"""What processes are made of: sockets, places, lines between them, privileges, supervision, what systemd is told."""
