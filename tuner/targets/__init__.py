"""GPUs that are not here: what is known of them, and what compiles for them."""
