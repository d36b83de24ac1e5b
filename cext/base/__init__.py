"""What every layer stands on: wire readers and writers, pooled buffers, timers."""
