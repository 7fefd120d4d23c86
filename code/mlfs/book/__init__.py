"""For pages and tests: plot style, exercise checker, claims."""
