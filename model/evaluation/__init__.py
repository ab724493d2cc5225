"""How good a model is on a text: perplexity, divergence from another model, tokens a second."""
