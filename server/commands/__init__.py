"""The commands that serve a model and talk to a server; one module for each group."""
