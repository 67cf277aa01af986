"""A local baseline -> an evaluated, tracked and registered model."""
