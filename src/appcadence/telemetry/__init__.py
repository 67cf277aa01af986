"""What was observed -> canonical tables."""
