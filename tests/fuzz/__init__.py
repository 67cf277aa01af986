"""Byte-level fuzzing of everything that reads a file from outside: `make fuzz`."""
