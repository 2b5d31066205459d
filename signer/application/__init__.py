"""The use cases: what happens to one challenge, step by step, over the ports in ``ports``."""
