"""The cases, a file for each topic."""
