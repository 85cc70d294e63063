"""What a worker tells the server of the model it has loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.engine.load_spec import ModelInfo

if TYPE_CHECKING:
    from server.engine.llama.context import Context
    from server.engine.load_spec import LoadSpec
    from server.engine.projector import Projector


def describe(
    spec: LoadSpec,
    context: Context,
    length: int,
    threads: tuple[int, int],
    seconds: float,
    held: dict[str, dict[str, int]],
    projector: Projector | None = None,
) -> ModelInfo:
    """Describe a loaded model.

    Args:
        spec: what was to be loaded. context: what it runs in.
        length: tokens that one request may have.
        threads: CPU threads for decoding and for prefill.
        seconds: how long loading took.
        held: bytes by llama.cpp's name of the device's memory, of the `model` and of each companion by its role.
        projector: what reads images and sounds for it.
    """
    model = context.model
    vocab = model.vocab
    return ModelInfo(
        name=spec.name,
        architecture=model.architecture,
        description=model.description,
        n_params=model.n_params,
        n_bytes=model.n_bytes,
        n_vocab=vocab.size,
        n_layers=model.n_layers,
        n_embd=model.n_embd,
        context=length,
        context_train=model.context_train,
        parallel=spec.parallel,
        kv_unified=context.shape.unified,
        chat_template=model.chat_template,
        bos_token=vocab.text(vocab.bos),
        eos_token=vocab.text(vocab.eos),
        eot_token=vocab.text(vocab.eot),
        add_bos=vocab.add_bos,
        fim={"prefix", "suffix", "middle"} <= vocab.fim_tokens().keys(),
        special_tokens=vocab.special_tokens,
        fim_tokens=vocab.fim_tokens(),
        device_bytes=held["model"],
        companion_bytes={role: sizes for role, sizes in held.items() if role != "model"},
        threads=threads[0],
        threads_batch=threads[1],
        kernels=context.kernels.instructions if context.kernels else "",
        vision=projector is not None and projector.vision,
        hearing=projector is not None and projector.hearing,
        embedding=spec.embedding,
        pooling=context.pooling,
        load_seconds=seconds,
    )
