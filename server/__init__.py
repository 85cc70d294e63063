"""brim's server: loads GGUF models with llama.cpp, places them on the machine's devices and answers HTTP."""

__version__ = "0.1.0"
