"""The families of features: each its declarations, and the kernel that fills them."""
