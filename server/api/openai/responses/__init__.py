"""OpenAI's Responses: conversations as lists of items, answered, streamed and kept."""
