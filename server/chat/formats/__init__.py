"""Chat formats, one module each, and the choice of the one that a model's template is written for."""
