"""A third model, as different from the others as the protocol allows, to prove that nothing else knows a model.

Its VAE is causal and has a state: 1 frame for the first latent, 4 for each later one. Its first chunk is one latent,
its attention sees everything, its context is slightly noisy, and guidance leads away from a negative prompt.
"""
