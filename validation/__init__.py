"""One study per claim of the papers: theory against numerics, with a verdict that can fail."""
