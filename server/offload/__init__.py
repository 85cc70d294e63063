"""Which devices there are, what a model needs on each, and what goes where."""
