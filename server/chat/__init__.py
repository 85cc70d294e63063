"""From messages and tools to prompt text, and from generated text back to content, reasoning and tool calls."""
