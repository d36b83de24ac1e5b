"""File descriptors: the epoll loop, streams, listeners. No protocol is known here."""
