"""The exercises of each chapter: references, cases and the mistakes they know."""
