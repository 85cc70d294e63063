"""llama.cpp as three objects: a `Model`, its `Vocab` and a `Context` that decodes batches and holds KV state.

With the projector's, the engine's only modules that call llama_cpp. llama.cpp ends the process where an assertion
fails, so callers keep positions consecutive and never copy part of a sequence between separate KV buffers.
"""
