"""A trained model or a subset in; its quality, measured in stated ways, out."""
