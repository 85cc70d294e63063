"""What llama.cpp's own helper gives: greedy tokens for a prompt with images and sounds, printed as JSON.

Run as `python -m tests.engine.mtmd_reference MODEL PROJECTOR TOKENS PART...`, a part being `text:...` or `file:FILE`.
"""

# pyright: basic

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as _ll
import llama_cpp.mtmd_cpp as _mtmd
import numpy as np

ll: Any = _ll
mtmd: Any = _mtmd
"""The annotations of pointers and of what may be null do not hold for what these functions take and give."""


def main() -> None:
    """Answer one prompt."""
    model_path, projector_path, count, *parts = sys.argv[1:]
    ll.llama_backend_init()
    params = ll.llama_model_default_params()
    params.n_gpu_layers = 0
    model = ll.llama_model_load_from_file(model_path.encode(), params)
    context_params = ll.llama_context_default_params()
    context_params.n_ctx = 512
    context = ll.llama_init_from_model(model, context_params)
    projector_params = mtmd.mtmd_context_params_default()
    projector_params.use_gpu = False
    projector_params.warmup = False
    projector = mtmd.mtmd_init_from_file(projector_path.encode(), model, projector_params)
    text, bitmaps = "", []
    for part in parts:
        kind, _, value = part.partition(":")
        if kind == "text":
            text += value
            continue
        text += mtmd.mtmd_default_marker().decode()
        data = Path(value).read_bytes()
        buffer = (ctypes.c_uint8 * len(data)).from_buffer_copy(data)
        bitmaps.append(mtmd.mtmd_helper_bitmap_init_from_buf(projector, buffer, len(data), False))
    chunks = mtmd.mtmd_input_chunks_init()
    prompt = mtmd.mtmd_input_text(text.encode(), len(text.encode()), True, True)
    status = mtmd.mtmd_tokenize(
        projector, chunks, ctypes.byref(prompt), (mtmd.mtmd_bitmap_p_ctypes * len(bitmaps))(*bitmaps), len(bitmaps)
    )
    assert status == 0
    past = ll.llama_pos(0)
    assert mtmd.mtmd_helper_eval_chunks(projector, context, chunks, 0, 0, 512, True, ctypes.byref(past)) == 0
    vocabulary = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(model))
    position, tokens = past.value, []
    while len(tokens) < int(count):
        logits = np.ctypeslib.as_array(ll.llama_get_logits_ith(context, -1), (vocabulary,))
        tokens.append(int(logits.argmax()))
        token, place = (ll.llama_token * 1)(tokens[-1]), (ll.llama_pos * 1)(position)
        batch = ll.llama_batch_get_one(token, 1)
        batch.pos = place
        assert ll.llama_decode(context, batch) == 0
        position += 1
    print(json.dumps({"tokens": tokens, "prompt_tokens": mtmd.mtmd_helper_get_n_tokens(chunks)}))


if __name__ == "__main__":
    main()
