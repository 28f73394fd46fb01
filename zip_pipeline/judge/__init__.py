"""A language model as judge: asked at an endpoint, answers kept, ratings read."""
