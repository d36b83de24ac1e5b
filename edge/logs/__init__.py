"""Access log, error log and key log, and the process that writes them."""
