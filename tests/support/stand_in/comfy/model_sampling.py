"""The two kinds of model that samplers tell apart with isinstance."""


class CONST:
    """Flow matching."""

    def noise_scaling(self, sigma, noise, latent, max_denoise=False):
        return (1.0 - sigma) * latent + sigma * noise


class EPS:
    """Variance exploding."""

    def noise_scaling(self, sigma, noise, latent, max_denoise=False):
        return latent + sigma * noise
