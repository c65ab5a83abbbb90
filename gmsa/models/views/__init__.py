"""Other faces of a model: what it is made of, and as PyG calls it."""
