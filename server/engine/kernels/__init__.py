"""Products of quantized weights and activations on the CPU: brim's own, in place of llama.cpp's.

`code` puts machine code together, `formats` unpacks weights, `product` multiplies, `device` shows that to llama.cpp as
an accelerator, `compiled` turns it into machine code and remembers that, and `install` brings it all into a process.
"""
