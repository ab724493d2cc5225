"""What is between the four matrices of a BLOOM block, in float32."""

import math

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def slopes(heads: int) -> Tensor:
    """Return by how much each head's scores fall with distance (ALiBi, arXiv 2108.12409)."""
    power = 2 ** math.floor(math.log2(heads))
    base = 2.0 ** (-8 / power)
    of_next = 2.0 ** (-4 / power)  # every second slope of twice as many heads
    found = [base ** (at + 1) for at in range(power)]
    found += [of_next ** (2 * at + 1) for at in range(heads - power)]
    return torch.tensor(found)


def attention(fused: Tensor, heads: int) -> Tensor:
    """Attend within one sequence; `fused` [tokens, 3 hidden] has query, key and value by head."""
    tokens, width = fused.shape
    size = width // (3 * heads)
    query, key, value = fused.view(tokens, heads, 3, size).permute(2, 1, 0, 3)
    places = torch.arange(tokens)
    distance = places[None] - places[:, None]  # from a query to a key
    bias = slopes(heads)[:, None, None] * distance
    bias.masked_fill_(distance > 0, -torch.inf)
    mixed = scaled_dot_product_attention(query[None], key[None], value[None], attn_mask=bias[None])
    return mixed[0].transpose(0, 1).reshape(tokens, heads * size)
