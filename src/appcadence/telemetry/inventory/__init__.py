"""What apps declare and who approved them, from many sources."""
