"""How good a result is: image, motion and identity metrics as pure functions, and the protocols that use them."""
