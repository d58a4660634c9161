"""Training the toybox model from nothing: autoencoder, latents, text encoder and UNet, and the file."""
