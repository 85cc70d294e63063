"""One module per protocol; each translates its own schema to and from the engine's one request form."""
