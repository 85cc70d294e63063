"""Ollama's protocol: models and their management, chat, generate and embed."""
