"""Few-shot classification: data, episodes, and the methods that learn from them."""
