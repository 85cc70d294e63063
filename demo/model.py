"""A Llama in plain PyTorch, whose parameters carry the names that Hugging Face gives them."""

# pyright: basic, reportMissingImports=false
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama; sizes of weights are multiples of 256 so that K-quants apply to every tensor."""

    hidden: int = 256
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 512
    vocabulary: int = 2048
    context: int = 2048
    rope_theta: float = 10000.0
    epsilon: float = 1e-5

    @property
    def head_dim(self) -> int:
        """The width of one attention head."""
        return self.hidden // self.heads

    def as_dict(self) -> dict[str, float]:
        """Return the sizes by name."""
        return asdict(self)


MAIN = Shape()
DRAFT = Shape(layers=2, feed_forward=256)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        kv_width = shape.kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden, shape.hidden, bias=False)
        self.k_proj = nn.Linear(shape.hidden, kv_width, bias=False)
        self.v_proj = nn.Linear(shape.hidden, kv_width, bias=False)
        self.o_proj = nn.Linear(shape.hidden, shape.hidden, bias=False)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], lengths: Sequence[int]) -> Tensor:
        """Attend within each of the documents that lie one after the other in [time, hidden]."""
        q, k, v = (
            projection(x).view(1, len(x), -1, self.shape.head_dim).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, rope), rotate(k, rope)
        group = self.shape.heads // self.shape.kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        # A document at a time computes no more than it needs; a mask over the whole row would cost its square.
        documents = zip(*(each.split(lengths, dim=2) for each in (q, k, v)), strict=True)
        y = torch.cat([functional.scaled_dot_product_attention(*each, is_causal=True) for each in documents], dim=2)
        return self.o_proj(y.transpose(1, 2).reshape(x.shape))


class FeedForward(nn.Module):
    """SwiGLU (Shazeer, "GLU Variants Improve Transformer", 2020)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.feed_forward, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.feed_forward, bias=False)
        self.down_proj = nn.Linear(shape.feed_forward, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., hidden] to [..., hidden]."""
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden, shape.epsilon)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden, shape.epsilon)
        self.mlp = FeedForward(shape)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], lengths: Sequence[int]) -> Tensor:
        """Map [time, hidden] to the same shape."""
        x = x + self.self_attn(self.input_layernorm(x), rope, lengths)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """A causal language model with tied embeddings."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, shape.epsilon)
        cos, sin = rope_tables(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.apply(self._initialize)

    def _initialize(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            # The input of the residual stream's two writers is scaled down by depth, as in GPT-2.
            writes = isinstance(module, nn.Linear) and module.out_features == self.shape.hidden
            nn.init.normal_(module.weight, std=0.02 / (2 * self.shape.layers) ** 0.5 if writes else 0.02)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        lengths: Sequence[int] | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Return next-token logits.

        Args:
            tokens: Ids, [batch, time].
            positions: Positions, [batch, time]; 0, 1, 2 and so on by default.
            lengths: How many tokens each document has, over all rows, one after the other; a token attends to
                those of its document up to itself. A row is one document by default.
            wanted: Where logits are wanted, booleans, [batch, time]; everywhere by default.

        Returns:
            Logits, [batch, time, vocabulary], or with `wanted` those of its true places, [places, vocabulary].
        """
        batch, time = tokens.shape
        at = torch.arange(time, device=tokens.device).repeat(batch) if positions is None else positions.flatten()
        rope = (self.cos[at], self.sin[at])  # pyright: ignore[reportIndexIssue]
        x = self.embed_tokens(tokens.flatten())
        for layer in self.layers:
            x = layer(x, rope, lengths or [time] * batch)
        x = x.view(batch, time, -1)
        return functional.linear(self.norm(x if wanted is None else x[wanted]), self.embed_tokens.weight)


def rope_tables(shape: Shape) -> tuple[Tensor, Tensor]:
    """Return cosines and sines, [context, head_dim], for rotary positions in Hugging Face's half-split order."""
    rates = shape.rope_theta ** (-torch.arange(0, shape.head_dim, 2).float() / shape.head_dim)
    angles = torch.outer(torch.arange(shape.context).float(), rates).repeat(1, 2)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Turn [1, heads, time, head_dim] by its positions (Su et al., "RoFormer", 2021)."""
    cos, sin = rope
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
