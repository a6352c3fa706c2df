"""Real servers as child processes on loopback: for the demo, tests and trying things out."""
