"""The API reference: what /openapi.json tells beside what FastAPI sees, one module of entries for each protocol."""
