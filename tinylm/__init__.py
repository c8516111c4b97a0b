"""A small Transformer language model that can be trained, resumed, and sampled from."""
