"""Pictures: guarded fetching, decoding in child processes."""
