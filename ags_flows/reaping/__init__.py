"""What is left over is found and ended: what is provably ours, and provably nobody's."""
