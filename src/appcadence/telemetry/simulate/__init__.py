"""Simulated fleets and implants, and the truth about them."""
