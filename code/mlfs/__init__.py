"""Machine Learning from Scratch: the code behind the book, one module a chapter."""
