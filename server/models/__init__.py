"""Models on this machine: the store, Modelfiles, downloads, and the manager that loads and evicts them."""
