"""One worker process per loaded model: scheduling, prefix cache and sampling around llama.cpp."""
