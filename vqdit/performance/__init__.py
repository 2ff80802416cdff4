"""What a program costs, known before it runs: FLOPs, memory, traffic, and the time that a chip needs at least."""
