"""The composition root: decides which implementation stands behind which port."""
