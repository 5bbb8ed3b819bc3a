"""STDiT, the transformer that pocket and Open-Sora share."""
